"""A node whose disk loses its power: a loop device over a `FuseDisk`, and deploys in processes that are killed whole.

Only the network is false, and what a killed process must not leave in the firmware: variables are written at once.
This kernel may not know vfat, so the ESP's filesystem is an ext4 in the middle of its partition, behind what mkfs.vfat
wrote: on the same disk, with the same losses.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

from agentbench.loop import NodePrograms, forget_partitions
from agentbench.node import Node
from agentbench.store_server import StoreServer
from cloner_agent.efivars import EfiVars
from cloner_agent.host import Completed, run
from cloner_core.efi import frame
from cloner_core.sizes import MIB
from soak.place import loops_over

ESP_OFFSET = 8 * MIB
ESP_SIZE = 12 * MIB
_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS, _CLONE_NEWPID = 0x00020000, 0x20000000
_MS_REC, _MS_PRIVATE = 1 << 14, 1 << 18
_PR_SET_PDEATHSIG = 1
_DEADLINE_S = 120.0
_LET_GO_S = 10.0
STAGE = "CLONER STAGE "
SAID = "SAID "

Result = TypeVar("Result")


class EspPrograms(NodePrograms):
    """Runs programs as a node does, except that vfat is an ext4 within its partition."""

    def __call__(
        self, argv: Sequence[str], *, stdin: str = "", timeout_s: float = 60.0, accept: Sequence[int] = (0,)
    ) -> Completed:
        command = tuple(argv)
        if command[:3] == ("mount", "-t", "vfat"):
            return mount_esp(command[-2], command[-1])
        done = run(command, stdin=stdin, timeout_s=timeout_s, accept=accept)
        if command[0] == "mkfs.vfat":
            place = ("-E", f"offset={ESP_OFFSET}", command[-1], f"{ESP_SIZE >> 10}k")
            run(("mke2fs", "-q", "-F", "-t", "ext4", *place))
        return done


def mount_esp(device: str, where: str) -> Completed:
    """Mount what stands for the ESP's filesystem."""
    return run(("mount", "-t", "ext4", "-o", f"loop,offset={ESP_OFFSET},sizelimit={ESP_SIZE}", device, where))


class FirmwareVars(EfiVars):
    """Variables as firmware writes them: whole, or not at all."""

    def write(self, name: str, value: bytes) -> None:
        """Set a variable."""
        path = self._path(name)
        new = path.with_suffix(".new")
        new.write_bytes(frame(value))
        new.replace(path)


class ToldServer(StoreServer):
    """Says on a descriptor what it was asked, and answers when another descriptor allows it."""

    out = -1
    leave = -1

    def _heard(self, what: str) -> None:
        super()._heard(what)
        if what != "beat":
            os.write(self.out, f"{SAID}{what}\n".encode())
            os.read(self.leave, 1)


@contextmanager
def loop_device(file: Path) -> Iterator[str]:
    """Give a loop device over a file; nothing of it is left afterwards."""
    device = run(("losetup", "--find", "--show", str(file))).stdout.strip()
    try:
        forget_partitions(device)
        yield device
    finally:
        # The loop device on the ESP's partition lets go of it a moment after the unmount; one that was made for a mount
        # which was killed never does.
        end_s = time.monotonic() + _LET_GO_S
        while list(Path("/sys/block", device.removeprefix("/dev/")).glob("loop*p*")) and time.monotonic() < end_s:
            for above in loops_over(f"{device}p"):
                run(("losetup", "--detach", above), accept=(0, 1))
            forget_partitions(device)
            time.sleep(0.02)
        run(("losetup", "--detach", device))


def apart(work: Callable[[], Result]) -> Result:
    """Do something in a process with mounts of its own, which are gone when this returns; give or raise what it does.

    Mounts of ours that others can see are copied into each mount namespace made meanwhile (`ip netns exec` makes one),
    and stay alive there: a filesystem that outlives its power cut would write on.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        answer: tuple[bool, object] = (False, RuntimeError("killed"))
        try:
            os.close(reading)
            _leave(_CLONE_NEWNS)
            answer = (True, work())
        except BaseException as error:  # noqa: BLE001 — raised again by the one who asked
            answer = (False, error)
        finally:
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(pickle.dumps(answer))
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    is_done, result = pickle.loads(told)
    if not is_done:
        raise result
    return cast(Result, result)


def _leave(namespaces: int) -> None:
    """Leave the namespaces of the others; mounts made from now on are not seen there."""
    if _LIBC.unshare(namespaces) != 0 or _LIBC.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


@dataclass(frozen=True, slots=True)
class Ran:
    """What was heard of one deploy."""

    lines: tuple[str, ...]
    seconds: dict[str, float]  # when each stage began
    is_cut: bool
    failure: str = ""

    @property
    def stage(self) -> str:
        """The last stage it was in; "start" before the first."""
        return list(self.seconds)[-1] if self.seconds else "start"

    def has_said(self, what: str) -> bool:
        """Whether the server was told."""
        return f"{SAID}{what}" in self.lines


def run_deploy(node: Node, *, cut_at: tuple[str, float] | None, power_off: Callable[[], None]) -> Ran:
    """Deploy in processes of their own and, so many seconds after the line `cut_at` names, cut the power and kill them.

    Without `cut_at`, and where the deploy is faster, the power is cut when it would restart the machine. After a line
    of the server's the node waits for the cut: what it said is recorded, and not answered yet.
    """
    reading, writing = os.pipe()
    taking, giving = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.close(giving)
        _be_killable(writing, lambda: _deploy(node, writing, taking))
    os.close(writing)
    os.close(taking)
    ear = _Ear(reading, giving, cut_at)
    is_cut = False
    try:
        is_cut = ear.listen()
        power_off()
    finally:
        if ear.init and not ear.has_ended:
            with contextlib.suppress(ProcessLookupError):  # it has come to its end since
                os.kill(ear.init, signal.SIGKILL)  # and with it everything in its namespace
        os.waitpid(child, 0)
        ear.hear_rest()
        os.close(reading)
        os.close(giving)
    failure = [line.removeprefix("FAILURE ") for line in ear.lines if line.startswith("FAILURE ")]
    return Ran(tuple(ear.lines), ear.seconds, is_cut, failure[0] if failure else "")


class _Ear:
    """Hears a deploy, and lets it go on after what it said to the server, until its power is to be cut."""

    def __init__(self, reading: int, giving: int, cut_at: tuple[str, float] | None) -> None:
        self.lines: list[str] = []
        self.seconds: dict[str, float] = {}
        self.init = 0  # the first process of its namespace
        self.has_ended = False
        self._reading, self._giving, self._cut_at = reading, giving, cut_at
        self._began_s = time.monotonic()
        self._cut_s = float("inf")
        self._buffered = b""

    def listen(self) -> bool:
        """Return True when it is time to cut, False when the deploy has ended; raises TimeoutError when it hangs."""
        end_s = self._began_s + _DEADLINE_S
        while (now_s := time.monotonic()) < self._cut_s:
            if now_s > end_s:
                raise TimeoutError(f"the deploy hangs: {self.lines[-3:]}")
            ready, _, _ = select.select([self._reading], [], [], min(self._cut_s, end_s) - now_s)
            if ready and not self._hear():
                return False
        return True

    def hear_rest(self) -> None:
        """Take what it said until it was killed."""
        while self._hear():
            pass

    def _hear(self) -> bool:
        piece = os.read(self._reading, 1 << 16)
        self.has_ended = not piece
        *whole, self._buffered = (self._buffered + piece).split(b"\n")
        for line in whole:
            self._take(line.decode(errors="replace"))
        return bool(piece)

    def _take(self, line: str) -> None:
        self.lines.append(line)
        now_s = time.monotonic()
        if line.startswith("PID "):
            self.init = int(line.split()[1])
        elif line.startswith(STAGE):
            self.seconds[line.removeprefix(STAGE)] = now_s - self._began_s
        if self._cut_at is not None and line == self._cut_at[0]:
            self._cut_s = now_s + self._cut_at[1]
        elif line.startswith(SAID):
            with contextlib.suppress(BrokenPipeError):  # killed since
                os.write(self._giving, b".")


def _be_killable(out: int, work: Callable[[], None]) -> None:
    """Do the work as the first process of a namespace of processes; never returns."""
    try:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _leave(_CLONE_NEWPID | _CLONE_NEWNS)
        init = os.fork()
        if init == 0:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            work()
            os._exit(0)
        os.write(out, f"PID {init}\n".encode())
        os.close(out)
        os.waitpid(init, 0)
    finally:
        os._exit(0)


def _deploy(node: Node, out: int, leave: int) -> None:
    assert isinstance(node.server, ToldServer)
    node.server.out, node.server.leave = out, leave
    node.screen = os.fdopen(out, "w", buffering=1, encoding="utf-8", closefd=False)
    try:
        failure = node.deploy()
        text = "" if failure is None else f"{failure.stage} {failure.cause} {failure.message}"
    except BaseException as error:  # noqa: BLE001 — nothing may escape into the forked test
        text = repr(error)
    if text:
        os.write(out, f"FAILURE {text!r}\n".encode())
