"""The staged failures: each a simulated machine that fails in one way, and what must come of it.

All of them are cloned at once before one server (docs/staged-failures.md); the table there is made from these rows.
"""

from __future__ import annotations

import os
import re
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agentbench import faults
from agentbench.golden import GOLDEN_UUID
from agentbench.ground import Ground, ground
from agentbench.simulated import SimulatedMachine, Spoil
from agentbench.wire import Mode
from agentbench.yard import End, Running
from cloner_agent.client import Endpoint
from cloner_agent.efivars import EfiVars
from cloner_agent.host import run
from cloner_agent.protocol import ServerFault
from cloner_agent.session import HttpsServer
from cloner_core.errors import UnreachableError
from cloner_core.facts import Facts
from cloner_core.mending import remedy
from cloner_core.messages import PROTOCOL, Cause, Hello, Stage
from torture import clear_locks

LOST_S = 8.0
_PATIENCE_S = 1.5
_STEALTH_S = LOST_S + 4


@dataclass(frozen=True)
class Row:
    """One failure and what is expected of it; stage, cause and hint are the failure's, None without one."""

    what: str
    state: str
    stage: Stage | None = None
    cause: Cause | None = None
    hint: str = ""  # a part of it; "" the rule book's for cause and stage
    end: End = End.CLONE
    alarm: str = ""  # an event that must have been raised
    note: str = ""  # in the receipt
    said: str = ""  # on the console
    attempts: int = 1
    stop: Callable[[Ground, Running], None] = lambda ground, one: None
    spoil: Spoil | None = None
    machine: dict[str, Any] = field(default_factory=dict)
    node: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The id of the case."""
        return re.sub(r"[^a-z0-9]+", "-", self.what.lower()).strip("-")

    @property
    def expected_hint(self) -> str:
        """What the hint must hold."""
        if self.hint or self.cause is None:
            return self.hint
        return remedy(self.cause, self.stage).do


# What a cable cut at the entry of a stage comes to: the next stage that needs the server fails.
_NEEDS_SERVER = {
    Stage.GUARD: Stage.RESTORE,
    Stage.PARTITION: Stage.RESTORE,
    Stage.MKFS: Stage.RESTORE,
    Stage.MOUNT: Stage.RESTORE,
    Stage.RESTORE: Stage.RESTORE,
    Stage.READBACK: Stage.IDENTITY,
    Stage.IDENTITY: Stage.IDENTITY,
    Stage.BOOTFILES: Stage.COMMIT,
    Stage.CHECK: Stage.COMMIT,
    Stage.COMMIT: Stage.COMMIT,
}


def _wire(mode: Mode, at: Stage, *, for_s: float = 0.0) -> Callable[[Ground, Running], None]:
    """Make the cable do `mode` from a stage on, until the machine holds or restarts, or for some seconds."""

    def stop(ground: Ground, one: Running) -> None:
        def mend(*_: object) -> None:
            assert one.wire is not None
            one.wire.set(Mode.OPEN)

        def act(one: Running) -> None:
            assert one.wire is not None
            one.wire.set(mode)
            if for_s:
                ground.yard.later(for_s, mend)

        one.at[at] = act
        if not for_s:
            one.on_end = mend

    return stop


def _network_rows() -> Iterator[Row]:
    for stage in Stage:
        what, short = f"network gone at {stage}", {"patience_s": _PATIENCE_S}
        if stage in (Stage.HELLO, Stage.VERIFY, Stage.PLAN):
            # Untold, since nobody heard it: the machine starts over by itself.
            attempts = 1 if stage is Stage.HELLO else 2
            yield Row(what, "done", machine=short, attempts=attempts, stop=_wire(Mode.CUT, stage))
        elif stage in _NEEDS_SERVER:
            fails = _NEEDS_SERVER[stage]
            hint = "check cable, switch port"
            cut = _wire(Mode.CUT, stage)
            yield Row(what, "failed", fails, Cause.NETWORK, hint, End.HOLDING, machine=short, stop=cut)
        else:
            yield Row(what, "done", machine=short, stop=_wire(Mode.CUT, stage, for_s=3.0))


def _at(stage: Stage, act: Callable[[Ground, Running], float | None]) -> Callable[[Ground, Running], None]:
    def stop(ground: Ground, one: Running) -> None:
        one.at[stage] = lambda one: act(ground, one)

    return stop


def _within(stage: Stage, act: Callable[[SimulatedMachine], None]) -> Callable[[Ground, Running], None]:
    def stop(ground: Ground, one: Running) -> None:
        one.within[stage] = lambda: act(one.machine)

    return stop


def _kill_agent(_ground: Ground, one: Running) -> None:
    one.kill_agent()


def _cut_power(ground: Ground, one: Running) -> None:
    one.signal_all(signal.SIGKILL)


def _abort(ground: Ground, one: Running) -> float:
    ground.served.admin("POST", f"/tasks/{ground.task(one)['id']}/abort")
    return 3.0  # longer than between two beats: the order is there before the stage goes on


def _silence_heartbeat(ground: Ground, one: Running) -> float:
    pid = one.heartbeat()
    os.kill(pid, signal.SIGSTOP)
    ground.yard.later(_STEALTH_S - 1, lambda: os.kill(pid, signal.SIGCONT))
    return _STEALTH_S


def _expire_claims(ground: Ground, one: Running) -> None:
    """Let the hour of a claim pass: the clock of the server cannot be moved for one node alone."""
    with sqlite3.connect(ground.served.state / "cloner.db", timeout=30) as database:
        database.execute("update claims set expires_s = 0 where node = ?", (one.machine.name,))


def _hello(ground: Ground, claim: str, facts: Facts) -> int:
    """Say hello from another machine; return the status of the refusal."""
    key = Ed25519PrivateKey.generate()
    where = ground.yard.where
    server = HttpsServer(Endpoint(where.address, where.tls, ground.yard.trust.ca_pem), key, patience_s=0)
    public = key.public_key().public_bytes_raw().hex()
    try:
        server.hello(Hello(protocol=PROTOCOL, agent_version="x", claim=claim, public_key=public, facts=facts))
    except ServerFault as fault:
        return fault.http_status
    except UnreachableError:
        return 503
    return 200


def _claim_of(text: str) -> str:
    found: list[str] = re.findall(r"cloner\.claim=(\S+)", text)
    return found[-1]


def _replay(ground: Ground, one: Running) -> float:
    """A stranger read the claim off the machine's screen."""
    stranger = replace(one.machine, mac="52:54:99:00:00:01", serial="stranger").facts()
    status = _hello(ground, _claim_of((one.machine.directory / "cmdline").read_text()), stranger)
    assert status == 409, f"a replayed claim got {status}"
    return 3.0


def _second(ground: Ground, one: Running) -> float:
    """A second machine of the very same identity netboots while the first works."""
    claim = _claim_of(ground.yard.where.boot_script(one.machine.mac))
    status = _hello(ground, claim, one.machine.facts(one.machine.mac))
    assert status == 503, f"a second claimant got {status}"
    return 3.0


def _exchange_board(ground: Ground, one: Running) -> None:
    """Cut the power; the machine that comes back is another one with the same network card."""
    one.machine.serial = "another board"
    one.signal_all(signal.SIGKILL)


def _no_disk_any_more(machine: SimulatedMachine) -> None:
    machine.disks.clear()


def _lose_kernel(machine: SimulatedMachine) -> None:
    for kernel in (machine.target / "boot").glob("vmlinuz-*"):
        kernel.unlink()


def _change_host_name(machine: SimulatedMachine) -> None:
    (machine.target / "etc/hostname").write_text("another\n")


def _turn_read_only(machine: SimulatedMachine) -> None:
    """Do to the target what ext4 does to itself after an error of its disk."""
    run(("mount", "-o", "remount,bind,ro", str(machine.target)))


def _lock_etc(machine: SimulatedMachine) -> None:
    run(("chattr", "+i", str(machine.target / "etc")))


def _carry_golden_uuid(machine: SimulatedMachine) -> None:
    other = faults.second_disk(machine)
    table = other.table()
    table.partitions[0].uuid = GOLDEN_UUID
    other.write(table)
    machine.disks[1] = replace(other, serial="OTHER")


def _spoil_disk(**fields: Any) -> Callable[[Ground, Running], None]:
    def stop(ground: Ground, one: Running) -> None:
        one.machine.disks[0] = replace(one.machine.disk, **fields)

    return stop


def _machine(change: Callable[[SimulatedMachine], object]) -> Callable[[Ground, Running], None]:
    def stop(ground: Ground, one: Running) -> None:
        change(one.machine)

    return stop


def _variables(kind: type[EfiVars]) -> dict[str, Any]:
    return {"variables": kind}


_DEAD = "mistake in Cloner"


def _rows() -> Iterator[Row]:
    yield from _network_rows()
    short = {"patience_s": _PATIENCE_S}
    hold, former, wait = End.HOLDING, End.FORMER, End.WAITING
    s, c = Stage, Cause
    yield Row(
        "server answers 500",
        "failed",
        s.RESTORE,
        c.NETWORK,
        "check cable, switch port",
        hold,
        machine=short,
        stop=_wire(Mode.BROKEN, s.RESTORE),
    )
    yield Row("server answers nonsense to hello", "done", stop=_wire(Mode.GARBAGE, s.HELLO))
    yield Row(
        "server answers nonsense at restore",
        "failed",
        s.RESTORE,
        c.CORRUPT,
        end=hold,
        stop=_wire(Mode.GARBAGE, s.RESTORE),
    )
    yield Row(
        "server answers nonsense to the receipt",
        "failed",
        s.RECEIPT,
        c.PROTOCOL,
        end=hold,
        stop=_wire(Mode.GARBAGE, s.RECEIPT),
    )
    for stage, end in ((s.VERIFY, former), (s.RESTORE, wait), (s.NVRAM, wait)):
        yield Row(f"agent killed at {stage}", "failed", stage, c.INTERNAL, end=end, stop=_at(stage, _kill_agent))
    yield Row(
        "out of memory",
        "failed",
        s.RESTORE,
        c.MEMORY,
        end=hold,
        stop=lambda ground, one: one.within.update({s.RESTORE: faults.no_memory}),
    )
    yield Row("heartbeat stopped", "done", alarm="silence", stop=_at(s.RESTORE, _silence_heartbeat))
    yield Row("power cut at restore", "done", attempts=2, stop=_at(s.RESTORE, _cut_power))
    yield from _disk_rows()
    yield from _claim_rows()
    for stage, end in ((s.VERIFY, former), (s.RESTORE, hold), (s.IDENTITY, hold), (s.COMMIT, hold)):
        yield Row(f"abort at {stage}", "aborted", end=end, stop=_at(stage, _abort))
    yield Row("abort after the commit", "aborted", end=hold, stop=_at(s.NVRAM, _abort))


def _disk_rows() -> Iterator[Row]:
    s, c, hold, former = Stage, Cause, End.HOLDING, End.FORMER
    yield Row(
        "disk too small", "failed", s.PLAN, c.DISK_TOO_SMALL, "smaller", former, stop=_spoil_disk(size_bytes=600 << 20)
    )
    yield Row(
        "no disk of the kind",
        "failed",
        s.PLAN,
        c.NO_DISK,
        "compare the selector",
        former,
        stop=_spoil_disk(serial="OTHER"),
    )
    yield Row(
        "disk is read-only",
        "failed",
        s.PLAN,
        c.NO_DISK,
        "compare the selector",
        former,
        stop=_spoil_disk(is_read_only=True),
    )
    yield Row(
        "two disks alike",
        "failed",
        s.PLAN,
        c.AMBIGUOUS_DISK,
        "narrow the selector",
        former,
        stop=_machine(faults.second_disk),
    )
    yield Row(
        "another disk carries an identifier of the image",
        "failed",
        s.PLAN,
        c.FOREIGN_UUID,
        end=former,
        stop=_machine(_carry_golden_uuid),
    )
    yield Row(
        "disk vanishes after the plan",
        "failed",
        s.GUARD,
        c.NO_DISK,
        end=former,
        stop=_within(s.GUARD, _no_disk_any_more),
    )
    yield Row(
        "disk busy",
        "failed",
        s.PARTITION,
        c.DEVICE_BUSY,
        "",
        hold,
        spoil=faults.program_fails("sfdisk", "sfdisk: /dev/x: Device or resource busy"),
    )
    yield Row(
        "sfdisk fails",
        "failed",
        s.PARTITION,
        c.TOOL,
        "whole output",
        hold,
        spoil=faults.program_fails("sfdisk", "no reason", 3),
    )
    yield Row(
        "disk error at mkfs",
        "failed",
        s.MKFS,
        c.DISK_IO,
        "",
        hold,
        spoil=faults.program_fails("mkfs.ext4", "mkfs.ext4: Input/output error while writing out and closing"),
    )
    yield Row(
        "mount ends well and mounts nothing",
        "failed",
        s.MOUNT,
        c.TOOL,
        "",
        hold,
        spoil=faults.program_says("mount", ""),
    )
    yield Row("disk error on write", "failed", s.RESTORE, c.DISK_IO, "SMART", hold, spoil=faults.failing_disk)
    yield Row("disk error on read-back", "failed", s.READBACK, c.DISK_IO, "SMART", hold, spoil=faults.torn_disk)
    yield Row(
        "disk turns read-only", "failed", s.RESTORE, c.DISK_IO, "", hold, stop=_within(s.RESTORE, _turn_read_only)
    )
    yield Row(
        "disk full on the node",
        "failed",
        s.RESTORE,
        c.NO_SPACE,
        "too small",
        hold,
        spoil=faults.root_is("-t", "tmpfs", "-o", "size=64k", "none"),
    )
    yield Row(
        "disk returns other bytes",
        "failed",
        s.READBACK,
        c.READBACK,
        "changed what was written",
        hold,
        spoil=faults.flips_a_byte(),
    )
    yield Row(
        "disk returns other bytes of a loader",
        "failed",
        s.COMMIT,
        c.READBACK,
        "",
        hold,
        spoil=faults.flips_a_byte("boot/efi/EFI/debian/grubx64.efi", at=3),
    )
    yield Row(
        "identity file cannot be written",
        "failed",
        s.IDENTITY,
        c.IDENTITY,
        "",
        hold,
        stop=_within(s.IDENTITY, _lock_etc),
    )
    yield Row(
        "identity changed before the check",
        "failed",
        s.CHECK,
        c.IDENTITY,
        "",
        hold,
        stop=_within(s.CHECK, _change_host_name),
    )
    yield Row(
        "kernel lost before the check", "failed", s.CHECK, c.NOT_BOOTABLE, "", hold, stop=_within(s.CHECK, _lose_kernel)
    )
    yield Row("NVRAM full", "done", note="NVRAM is full", machine=_variables(faults.FullVariables))
    yield Row(
        "NVRAM read-back differs", "failed", s.NVRAM, c.NVRAM, "", hold, machine=_variables(faults.ForgetfulVariables)
    )
    yield Row("NVRAM refuses", "failed", s.NVRAM, c.NVRAM, "", hold, machine=_variables(faults.RefusingVariables))
    yield Row("firmware shows no variables", "failed", s.NVRAM, c.NVRAM, "", hold, spoil=faults.no_variables)
    yield Row("output of a tool is nonsense", "done", spoil=faults.program_says("findmnt", "{garbage"))
    yield Row(
        "flipped pack byte", "failed", s.VERIFY, c.CORRUPT, "disk of the store", former, node={"image": "flipped"}
    )
    yield Row("missing pack", "failed", s.VERIFY, c.MISSING_PACK, "capture again", former, node={"image": "missing"})
    yield Row(
        "image without a kernel", "failed", s.PLAN, c.NOT_BOOTABLE, "golden node", former, node={"image": "kernelless"}
    )


def _claim_rows() -> Iterator[Row]:
    s = Stage
    yield Row("claim token expired", "done", said="the claim is unknown or expired", stop=_at(s.HELLO, _expire_claims))
    yield Row("claim token replayed", "frozen", end=End.FORMER, alarm="freeze", stop=_at(s.VERIFY, _replay))
    yield Row("second claimant", "frozen", end=End.FORMER, alarm="freeze", stop=_at(s.VERIFY, _second))
    yield Row(
        "second claimant after the first write", "frozen", end=End.HOLDING, alarm="freeze", stop=_at(s.RESTORE, _second)
    )
    yield Row("foreign fingerprint", "frozen", end=End.WAITING, alarm="freeze", stop=_at(s.VERIFY, _exchange_board))


def _kill_rows() -> Iterator[Row]:
    def kill(ground: Ground, one: Running) -> None:
        ground.served.kill()
        ground.served.start()

    for stage in Stage:
        yield Row(f"server killed at {stage}", "done", stop=_at(stage, kill))


ROWS = {row.name: row for row in _rows()}
KILL_ROWS = {row.name: row for row in _kill_rows()}


@dataclass(frozen=True)
class Outcome:
    """What became of a row."""

    row: Row
    one: Running
    former: str  # digest of its disk before
    task: dict[str, Any]
    events: tuple[str, ...]
    notes: tuple[str, ...]  # of the receipt


@contextmanager
def staged(
    directory: Path, rows: dict[str, Row], deadline_s: float = 150.0
) -> Iterator[tuple[Ground, dict[str, Outcome]]]:
    """Clone a machine for each row, all at once, and give what became of each."""
    images = {"flipped": faults.flip_pack, "missing": faults.lose_pack, "kernelless": None}
    wanted = {name: spoil for name, spoil in images.items() if any(name in row.node.values() for row in rows.values())}
    with ground(directory, images=wanted, lost_s=LOST_S) as made:
        machines: dict[str, Running] = {}
        formers = {}
        for name, row in rows.items():
            one = machines[name] = made.add(has_wire=True, node=row.node, **row.machine)
            one.machine.spoil = row.spoil
            row.stop(made, one)
            formers[name] = one.machine.disk.digest()
        made.deploy()
        made.yard.run(deadline_s=deadline_s)
        made.settle()
        try:
            yield made, {name: _outcome(made, rows[name], one, formers[name]) for name, one in machines.items()}
        finally:
            for etc in (directory / "bulk").glob("*/*/etc"):
                clear_locks(etc)


def _outcome(ground: Ground, row: Row, one: Running, former: str) -> Outcome:
    task = ground.task(one)
    told = ground.events(subject=f"task/{task['id']}")
    notes: tuple[str, ...] = ()
    if task["state"] in ("unconfirmed", "done"):
        notes = tuple(ground.served.admin("GET", f"/receipts/{one.machine.name}")["receipt"]["body"].get("notes", ()))
    return Outcome(row, one, former, task, tuple(event["what"] for event in told), notes)
