"""The rows of the table of staged failures (docs/staged-failures.md), as values: what fails, and what it is told as."""

from __future__ import annotations

from collections.abc import Iterator

from agentbench import faults, mishaps
from agentbench.row import Row, at_stage, cable, on_machine, variables, within_stage
from agentbench.wire import Mode
from agentbench.yard import End
from cloner_core.messages import DEPLOY_STAGES, SCRIPT_STAGES, Cause, Stage

_PATIENCE_S = 1.5

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


def _network_rows() -> Iterator[Row]:
    for stage in (stage for stage in DEPLOY_STAGES if stage not in SCRIPT_STAGES):
        what, short = f"network gone at {stage}", {"patience_s": _PATIENCE_S}
        if stage in (Stage.HELLO, Stage.VERIFY, Stage.PLAN):
            # Untold, since nobody heard it: the machine starts over by itself.
            attempts = 1 if stage is Stage.HELLO else 2
            yield Row(what, "done", machine=short, attempts=attempts, stop=cable(Mode.CUT, stage))
        elif stage in _NEEDS_SERVER:
            fails = _NEEDS_SERVER[stage]
            hint = "check cable, switch port"
            cut = cable(Mode.CUT, stage)
            yield Row(what, "failed", fails, Cause.NETWORK, hint, End.HOLDING, machine=short, stop=cut)
        else:
            yield Row(what, "done", machine=short, stop=cable(Mode.CUT, stage, for_s=3.0))


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
        stop=cable(Mode.BROKEN, s.RESTORE),
    )
    yield Row("server answers nonsense to hello", "done", stop=cable(Mode.GARBAGE, s.HELLO))
    yield Row(
        "server answers nonsense at restore",
        "failed",
        s.RESTORE,
        c.CORRUPT,
        end=hold,
        stop=cable(Mode.GARBAGE, s.RESTORE),
    )
    yield Row(
        "server answers nonsense to the receipt",
        "failed",
        s.RECEIPT,
        c.PROTOCOL,
        end=hold,
        stop=cable(Mode.GARBAGE, s.RECEIPT),
    )
    for stage, end in ((s.VERIFY, former), (s.RESTORE, wait), (s.NVRAM, wait)):
        yield Row(
            f"agent killed at {stage}", "failed", stage, c.INTERNAL, end=end, stop=at_stage(stage, mishaps.kill_agent)
        )
    yield Row(
        "out of memory",
        "failed",
        s.RESTORE,
        c.MEMORY,
        end=hold,
        stop=within_stage(s.RESTORE, faults.no_memory),
    )
    yield Row("heartbeat stopped", "done", alarm="silence", stop=at_stage(s.RESTORE, mishaps.silence_heartbeat))
    yield Row("power cut at restore", "done", attempts=2, stop=at_stage(s.RESTORE, mishaps.cut_power))
    yield from _disk_rows()
    yield from _claim_rows()
    for stage, end in ((s.VERIFY, former), (s.RESTORE, hold), (s.IDENTITY, hold), (s.COMMIT, hold)):
        yield Row(f"abort at {stage}", "aborted", end=end, stop=at_stage(stage, mishaps.abort))
    yield Row("abort after the commit", "aborted", end=hold, stop=at_stage(s.NVRAM, mishaps.abort))


def _disk_rows() -> Iterator[Row]:
    s, c, hold, former = Stage, Cause, End.HOLDING, End.FORMER
    yield Row(
        "disk too small", "failed", s.PLAN, c.DISK_TOO_SMALL, "smaller", former, stop=on_machine(faults.tight_disk)
    )
    yield Row(
        "no disk of the kind",
        "failed",
        s.PLAN,
        c.NO_DISK,
        "compare the selector",
        former,
        stop=on_machine(faults.other_disk),
    )
    yield Row(
        "disk is read-only",
        "failed",
        s.PLAN,
        c.NO_DISK,
        "compare the selector",
        former,
        stop=on_machine(faults.read_only_disk),
    )
    yield Row(
        "two disks alike",
        "failed",
        s.PLAN,
        c.AMBIGUOUS_DISK,
        "narrow the selector",
        former,
        stop=on_machine(faults.second_disk),
    )
    yield Row(
        "another disk carries an identifier of the image",
        "failed",
        s.PLAN,
        c.FOREIGN_UUID,
        end=former,
        stop=on_machine(faults.related_disk),
    )
    yield Row(
        "disk vanishes after the plan",
        "failed",
        s.GUARD,
        c.NO_DISK,
        end=former,
        stop=within_stage(s.GUARD, faults.no_disk_any_more),
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
        "disk turns read-only",
        "failed",
        s.RESTORE,
        c.DISK_IO,
        "",
        hold,
        stop=within_stage(s.RESTORE, faults.turn_read_only),
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
        stop=within_stage(s.IDENTITY, faults.lock_etc),
    )
    yield Row(
        "identity changed before the check",
        "failed",
        s.CHECK,
        c.IDENTITY,
        "",
        hold,
        stop=within_stage(s.CHECK, faults.change_host_name),
    )
    yield Row(
        "kernel lost before the check",
        "failed",
        s.CHECK,
        c.NOT_BOOTABLE,
        "",
        hold,
        stop=within_stage(s.CHECK, faults.lose_kernel),
    )
    yield Row("NVRAM full", "done", note="NVRAM is full", machine=variables(faults.FullVariables))
    yield Row(
        "NVRAM read-back differs", "failed", s.NVRAM, c.NVRAM, "", hold, machine=variables(faults.ForgetfulVariables)
    )
    yield Row("NVRAM refuses", "failed", s.NVRAM, c.NVRAM, "", hold, machine=variables(faults.RefusingVariables))
    yield Row("firmware shows no variables", "failed", s.GUARD, c.NVRAM, "", former, spoil=faults.no_variables)
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
    yield Row(
        "claim token expired",
        "done",
        said="the claim is unknown or expired",
        stop=at_stage(s.HELLO, mishaps.expire_claims),
    )
    yield Row("claim token replayed", "frozen", end=End.FORMER, alarm="freeze", stop=at_stage(s.VERIFY, mishaps.replay))
    yield Row("second claimant", "frozen", end=End.FORMER, alarm="freeze", stop=at_stage(s.VERIFY, mishaps.second))
    yield Row(
        "second claimant after the first write",
        "frozen",
        end=End.HOLDING,
        alarm="freeze",
        stop=at_stage(s.RESTORE, mishaps.second),
    )
    yield Row(
        "foreign fingerprint",
        "frozen",
        end=End.WAITING,
        alarm="freeze",
        stop=at_stage(s.VERIFY, mishaps.exchange_board),
    )


def _kill_rows() -> Iterator[Row]:
    for stage in (stage for stage in DEPLOY_STAGES if stage not in SCRIPT_STAGES):
        yield Row(f"server killed at {stage}", "done", stop=at_stage(stage, mishaps.kill_server))


ROWS = {row.name: row for row in _rows()}
KILL_ROWS = {row.name: row for row in _kill_rows()}
