"""Many simulated machines before one real server: each boot is a process, and what it comes to is looked at.

This process has one thread: it forks boots, waits for all of them at once, and does what was asked for at the moment a
machine enters a stage (cut its cable, kill the server) while that machine stands still.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import http.client
import io
import json
import logging
import os
import re
import resource
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TextIO, cast

from agentbench.simulated import RESTARTED, SimulatedMachine
from agentbench.wire import Mode, Wire
from cloner_agent.console import Console, ConsoleHandler
from cloner_agent.discover import Surroundings
from cloner_agent.runner import run_attempt
from cloner_agent.site import Trust, parse_arguments
from cloner_agent.waiting import wait_for_session
from cloner_core.confirmation import SETTINGS
from cloner_core.messages import Stage
from netns.netboot_lab import inside
from netns.talking_node import Where

_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18
_AGENT = re.compile(r"^kernel --name kernel \S+ (.*) \|\| goto again$", re.MULTILINE)
_AGAIN_S = 0.3
# An agent that died is started again, and restarts the machine ten seconds later. Until then its heartbeat has told of
# it; on a machine that is busy with many others that takes longer, and is waited for.
_DIED_S = 5.0
_TELLS_S = 60.0
_HTTP_S = 60.0
_libc = ctypes.CDLL(None, use_errno=True)


class End(Enum):
    """What a boot came to; the values of all but HOLDING are exit statuses."""

    RESTARTED = RESTARTED  # the agent restarted the machine
    CLONE = 11  # the clone runs, and the server knows
    FORMER = 12  # the system from before the deploy runs
    NOTHING = 13  # the firmware found no loader
    WAITING = 14  # the boot script says to wait
    DIED = 1  # the agent's process ended in any other way
    HOLDING = -1  # the agent shows its failure and touches nothing


_OVER = (End.CLONE, End.FORMER, End.NOTHING, End.WAITING, End.HOLDING)

Act = Callable[["Running"], float | None]
"""Done in the yard while a machine stands still at a stage; returns how many seconds it stands longer, or None."""


@dataclass
class Running:
    """A machine in the yard."""

    machine: SimulatedMachine
    console: Path  # all the machine ever said
    wire: Wire | None = None
    namespace: str = ""  # of the network, by name; "" that of the yard
    at: dict[Stage, Act] = field(default_factory=dict)  # what happens when it enters a stage; once each
    within: dict[Stage, Callable[[], None]] = field(default_factory=dict)  # the same, done in the agent's process
    on_end: Callable[[Running, End], object] = lambda one, end: None
    ends: list[End] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)
    first_end_s: float = 0.0  # from its first power-on until it came to something
    is_released: bool = False  # it holds, and is about to be told to restart
    pid: int = 0
    group: int = 0  # of processes, of the newest boot
    _started_s: float = 0.0
    _channel: socket.socket | None = None
    _pidfd: int = -1

    @property
    def end(self) -> End | None:
        """What the machine came to; None while it works."""
        return self.ends[-1] if self.ends and self.ends[-1] in _OVER else None

    def come_to(self, end: End) -> None:
        """Note what a boot came to."""
        self.ends.append(end)
        if end in _OVER and not self.first_end_s:
            self.first_end_s = time.monotonic() - self._started_s
        self.on_end(self, end)

    def kill_agent(self) -> None:
        """Kill the agent's process as the kernel would for memory; the heartbeat lives on."""
        os.kill(self.pid, signal.SIGKILL)

    def heartbeat(self) -> int:
        """Return the process of the agent's heartbeat."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return next(int(child) for child in children)

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to every process of the machine."""
        os.killpg(self.pid, number)


@dataclass
class Yard:
    """The machines, and where their server is."""

    where: Where
    trust: Trust
    machines: list[Running] = field(default_factory=list)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _timers: list[tuple[float, Callable[[], object]]] = field(default_factory=list)

    def add(self, machine: SimulatedMachine, console: Path, wire: Wire | None = None) -> Running:
        """Put a machine into the yard, switched off; `wire` stands between it and the API."""
        self.machines.append(Running(machine, console, wire))
        return self.machines[-1]

    def run(self, machines: Sequence[Running] | None = None, *, deadline_s: float, every_s: float = 0.0) -> None:
        """Switch on those that are off, and return when each of `machines` (all) has come to something.

        `every_s` stands between two that are switched on. Raises AssertionError when the deadline passes first.
        """
        gc.freeze()  # or every child would copy all pages at its first collection
        wanted = self.machines if machines is None else machines
        deadline = time.monotonic() + deadline_s
        for one in wanted:
            if not one.pid:
                self.switch_on(one)
                self._turn(every_s)
        while any(one.end is None for one in wanted):
            assert time.monotonic() < deadline, self._unfinished(wanted, deadline_s)
            self._turn(0.2)

    @staticmethod
    def _unfinished(wanted: Sequence[Running], deadline_s: float) -> str:
        left = [one for one in wanted if one.end is None]
        said = left[0].console.read_text()[-600:]
        return f"after {deadline_s:.0f} s {names(left)} have come to nothing; {left[0].machine.name} said last: {said}"

    def again(self, *machines: Running) -> None:
        """After a task was queued again: those that hold restart by the server's order, the others are power-cycled."""
        for one in machines:
            if one.pid and one.end is End.HOLDING:
                one.is_released = True
                one.ends.append(End.RESTARTED)
            else:
                self.switch_off(one)
                one.ends.append(End.RESTARTED)

    def later(self, seconds: float, act: Callable[[], object]) -> None:
        """Do something after some seconds, while the yard runs."""
        self._timers.append((time.monotonic() + seconds, act))

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._turn(left)

    def switch_off(self, *machines: Running) -> None:
        """Pull the plug."""
        for one in machines:
            if one.pid:
                one.signal_all(signal.SIGKILL)
                os.waitpid(one.pid, 0)
                self._forget(one)

    def close(self) -> None:
        """Switch everything off."""
        self.switch_off(*self.machines)
        for one in self.machines:
            if one.wire:
                one.wire.stop()
        gc.unfreeze()

    def _turn(self, seconds: float) -> None:
        due = [timer for timer in self._timers if timer[0] <= time.monotonic()]
        self._timers = [timer for timer in self._timers if timer not in due]
        for _, act in due:
            act()
        for key, _ in self._selector.select(min(0.1, max(0.0, seconds))):
            one = key.data
            # One that came to its end in this very turn has neither any more, or those of its next boot.
            if key.fileobj is one._channel:
                self._hear(one)
            elif key.fd == one._pidfd:
                self._ended(one)

    def switch_on(self, one: Running) -> None:
        """Begin a boot of a machine that is off."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sys.stdout.flush()
        sys.stderr.flush()
        one.pid = os.fork()
        if one.pid == 0:
            ours.close()
            _live(one, self.where, self.trust, theirs)
        theirs.close()
        one.group = one.pid
        one.is_released = False
        one._started_s = one._started_s or time.monotonic()
        one._channel, one._pidfd = ours, os.pidfd_open(one.pid)
        self._selector.register(ours, selectors.EVENT_READ, one)
        self._selector.register(one._pidfd, selectors.EVENT_READ, one)

    def _hear(self, one: Running) -> None:
        assert one._channel is not None
        try:
            said = one._channel.recv(100).decode()
        except ConnectionResetError:  # killed with our answer unread
            said = ""
        if said == "hold":
            if one.end is not End.HOLDING and not one.is_released:  # it is said again and again
                one.come_to(End.HOLDING)
        elif said:
            one.stages.append(said)
            act = one.at.pop(Stage(said), None)
            longer_s = act(one) if act is not None else None
            channel = one._channel
            if longer_s:
                self.later(longer_s, lambda: _go_on(one, channel))
            else:
                _go_on(one, channel)
        else:
            self._selector.unregister(one._channel)
            one._channel.close()
            one._channel = None

    def _ended(self, one: Running) -> None:
        while one._channel is not None and selectors_ready(one._channel):
            self._hear(one)
        _, status = os.waitpid(one.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._forget(one)
        end = End(code) if code in [known.value for known in End] else End.DIED
        one.come_to(end)
        if end is End.RESTARTED:
            self.switch_on(one)
        elif end is End.DIED:
            ends_s = time.monotonic() + _TELLS_S
            self.later(_DIED_S, lambda: self._restart(one, ends_s))

    def _restart(self, one: Running, ends_s: float) -> None:
        if not one.pid and _is_alive(one.group) and time.monotonic() < ends_s:
            self.later(0.5, lambda: self._restart(one, ends_s))
        elif not one.pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(one.group, signal.SIGKILL)
            self.switch_on(one)

    def _forget(self, one: Running) -> None:
        self._selector.unregister(one._pidfd)
        os.close(one._pidfd)
        one._pidfd = -1
        if one._channel is not None:
            self._selector.unregister(one._channel)
            one._channel.close()
            one._channel = None
        one.pid = 0


def _is_alive(group: int) -> bool:
    """Say whether a process of the group is there, its heartbeat mostly."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _go_on(one: Running, channel: socket.socket | None) -> None:
    if channel is not None and one._channel is channel:
        with contextlib.suppress(OSError):  # it was killed where it stood
            channel.send(b".")


def selectors_ready(channel: socket.socket) -> bool:
    """Say whether something waits to be read."""
    with selectors.DefaultSelector() as selector:
        selector.register(channel, selectors.EVENT_READ)
        return bool(selector.select(0))


def _live(one: Running, where: Where, trust: Trust, channel: socket.socket) -> None:
    """Be one boot of a machine, from its firmware on; never returns."""
    status = End.DIED.value
    try:
        os.setpgid(0, 0)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        with one.console.open("a") as out:
            for fd in (1, 2):
                os.dup2(out.fileno(), fd)
            with inside(one.namespace) if one.namespace else contextlib.nullcontext():
                _own_mounts()
                status = _boot(one, where, trust, channel, out).value
    except BaseException:  # noqa: BLE001 — whatever it is, this process must end here
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def _own_mounts() -> None:
    """Take a mount namespace of our own: what is mounted in it goes with the process."""
    if _libc.unshare(_CLONE_NEWNS) or _libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "unshare")


def _boot(one: Running, where: Where, trust: Trust, channel: socket.socket, out: TextIO) -> End:
    try:
        script = _fetch_script(one, where)
    except (OSError, http.client.HTTPException) as fault:
        out.write(f"iPXE: no boot script: {fault!r}\n")
        time.sleep(_AGAIN_S)
        return End.RESTARTED
    if (line := _AGENT.search(script)) is not None:
        _run_agent(one, line.group(1), trust, channel, out)
        return End.DIED  # a restart does not come back here
    if "asking again" in script:
        return End.WAITING
    return _boot_disk(one, where)


def _fetch_script(one: Running, where: Where) -> str:
    if one.wire is not None and one.wire.mode is Mode.CUT:
        one.wire.meet()
        raise OSError("the cable is cut")
    connection = http.client.HTTPConnection(where.address, where.http, timeout=_HTTP_S)
    connection.request("GET", f"/boot/ipxe?mac={one.machine.mac.replace(':', '-')}&platform=efi")
    answer = connection.getresponse()
    text = answer.read().decode()
    if answer.status != 200:
        raise OSError(f"status {answer.status}")
    return text


def _run_agent(one: Running, command_line: str, trust: Trust, channel: socket.socket, out: TextIO) -> None:
    """Do what the agent's `__main__` does on a node."""
    console = Console(cast(TextIO, _Screen(out, one, channel)))
    logging.disable(logging.NOTSET)
    root = logging.getLogger()
    root.handlers[:] = [ConsoleHandler(console)]
    root.setLevel(logging.INFO)
    (one.machine.directory / "cmdline").write_text(command_line)
    arguments = parse_arguments(command_line)
    if one.wire is not None:
        arguments = dataclasses.replace(arguments, port=one.wire.port)
    hardware = one.machine.hardware()
    if arguments.is_wait:
        around = Surroundings(hardware.run, hardware.probe, hardware.machine.reboot, sleep=hardware.sleep)
        arguments = dataclasses.replace(arguments, claim=wait_for_session(console, arguments, trust, around))
    run_attempt(console, arguments, trust, hardware)


class _Screen(io.TextIOBase):
    """What the agent writes its console to; it stands still where something is to happen at a stage."""

    def __init__(self, out: TextIO, one: Running, channel: socket.socket) -> None:
        self._out = out
        self._one = one
        self._channel = channel
        self._owner = os.getpid()

    def write(self, text: str) -> int:
        """Write one line."""
        self._out.write(text)
        words = text.split()
        if os.getpid() == self._owner and words[:2] == ["CLONER", "STAGE"]:
            self._channel.send(words[2].encode())
            self._channel.recv(1)
            self._one.within.get(Stage(words[2]), lambda: None)()
        elif words[:2] == ["CLONER", "FAILED"]:
            # What failed has given its memory back by now, if it was that.
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        elif words == ["CLONER", "HOLD"] and os.getpid() == self._owner:
            self._channel.send(b"hold")
        return len(text)

    def flush(self) -> None:
        """Have everything in the file."""
        self._out.flush()


def _boot_disk(one: Running, where: Where) -> End:
    disk = one.machine.disk
    root = disk.filesystem("ext4")
    if not disk.is_bootable():
        return End.FORMER if root is not None and (root / "precious").exists() else End.NOTHING
    assert root is not None
    settings = root / SETTINGS.lstrip("/")
    if settings.exists():
        told = dict(line.split("=", 1) for line in settings.read_text().split())
        call = {
            "secret": told["SECRET"],
            "machine_id": (root / "etc/machine-id").read_text().strip(),
            "boot_id": os.urandom(16).hex(),
            "root_part_uuid": disk.root_part_uuid(),
        }
        connection = http.client.HTTPConnection(told["HOST"], int(told["PORT"]), timeout=_HTTP_S)
        connection.request("POST", "/confirm", json.dumps(call), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            os.write(2, f"the clone was not believed: {answer.status} {answer.read()!r}\n".encode())
            return End.DIED
        settings.unlink()
    return End.CLONE


def names(machines: Collection[Running]) -> list[str]:
    """Return the names of machines."""
    return [one.machine.name for one in machines]
