"""Releases a disk from what holds it: swap, mounts, device mapper, RAID. Writes nothing to it.

Must not choose the disk; a disk that stays held stops the deploy before anything was destroyed.
"""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

from cloner_agent.blockdevices import partitions_of
from cloner_agent.failures import StageError
from cloner_agent.host import Runner, ToolError
from cloner_core.messages import Cause

log = logging.getLogger(__name__)

_PASSES = 8  # mapping on volume group on array on partition: each pass peels one layer off


def stop_holders(disk: str, run: Runner, *, root: str = "/") -> None:
    """Release `disk` ("/dev/vda") and prove that nobody else has it open.

    Raises StageError (DEVICE_BUSY) naming what still holds it. `root` stands before /sys and /proc.
    """
    base = Path(root)
    for _ in range(_PASSES):
        members = _members(base, disk)
        held = [holder for member in members for holder in _holders(base, member)]
        devices = {f"/dev/{member}": _device_number(base, member) for member in [*members, *held]}
        _release(base, run, devices)
        if not held:
            break
        for holder in dict.fromkeys(held):
            _stop(base, run, holder)
    left = [holder for member in _members(base, disk) for holder in _holders(base, member)]
    if left:
        raise StageError(Cause.DEVICE_BUSY, f"{disk} is still held by {', '.join(left)}")
    _prove_free(disk)


def _members(base: Path, disk: str) -> list[str]:
    path = base / "sys/block" / disk.removeprefix("/dev/")
    return [path.name, *(partition.name for partition in partitions_of(path))]


def _holders(base: Path, name: str) -> list[str]:
    directory = base / "sys/class/block" / name / "holders"
    return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []


def _device_number(base: Path, name: str) -> str:
    try:
        return (base / "sys/class/block" / name / "dev").read_text().strip()
    except OSError:
        return ""


def _release(base: Path, run: Runner, devices: dict[str, str]) -> None:
    for line in _lines(base / "proc/swaps")[1:]:
        if line.split()[0] in devices:
            _try(run, ("swapoff", line.split()[0]))
    numbers = set(devices.values())
    mounted = []
    for line in _lines(base / "proc/self/mountinfo"):
        fields = line.split()
        source = fields[fields.index("-") + 2] if "-" in fields else ""
        if fields[2] in numbers or source in devices:
            mounted.append(fields[4].encode().decode("unicode_escape"))
    for where in reversed(mounted):  # children were mounted later
        _try(run, ("umount", where))


def _stop(base: Path, run: Runner, holder: str) -> None:
    if holder.startswith("md"):
        _try(run, ("mdadm", "--stop", f"/dev/{holder}"))
    elif holder.startswith("dm-"):
        name = "".join(_lines(base / "sys/class/block" / holder / "dm/name"))
        uuid = "".join(_lines(base / "sys/class/block" / holder / "dm/uuid"))
        if uuid.startswith("CRYPT-"):
            _try(run, ("cryptsetup", "close", name))
        else:
            _try(run, ("dmsetup", "remove", name))
    elif holder.startswith("bcache"):
        log.warning("%s: bcache is not stopped by the agent", holder)


def _try(run: Runner, argv: tuple[str, ...]) -> None:
    """Run a tool whose failure only shows later, as a disk that is still held."""
    try:
        run(argv)
    except ToolError as error:
        log.warning("%s", error)


def _prove_free(disk: str) -> None:
    """Open exclusively, as the kernel does for a mount: EBUSY when anybody else has claimed the disk."""
    try:
        os.close(os.open(disk, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise StageError(Cause.DEVICE_BUSY, f"{disk} is in use and what uses it cannot be named") from error
        raise StageError(Cause.DISK_IO, f"{disk} cannot be opened: {error.strerror}") from error


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
