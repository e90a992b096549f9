"""Releases a disk from what holds it: swap, mounts, device mapper, RAID. Writes nothing to it.

Must not choose the disk; a disk that stays held stops the deploy before anything was destroyed.
"""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

from cloner_agent.blockdevices import all_holders_of, holders_of, mapped_name, partitions_of
from cloner_agent.failures import StageError
from cloner_agent.host import Runner, ToolError
from cloner_core.messages import Cause

log = logging.getLogger(__name__)

_PASSES = 8  # each stops what nothing else is built on, the outermost first


def stop_holders(disk: str, run: Runner, *, root: str = "/") -> None:
    """Release `disk` ("/dev/vda") and prove that nobody else has it open.

    Raises StageError (DEVICE_BUSY) naming what still holds it. `root` stands before /sys and /proc.
    """
    base = Path(root)
    members = _members(base, disk)
    for _ in range(_PASSES):
        held = all_holders_of(base, members)
        _release(base, run, [*members, *held])
        if not held:
            break
        for holder in reversed(held):  # the outermost first
            if not holders_of(base, holder):
                _stop(base, run, holder)
    left = all_holders_of(base, members)
    if left:
        named = ", ".join(mapped_name(base, holder) for holder in left)
        raise StageError(Cause.DEVICE_BUSY, f"{disk} is still held by {named}")
    _prove_free(disk)


def _members(base: Path, disk: str) -> list[str]:
    path = base / "sys/block" / disk.removeprefix("/dev/")
    return [path.name, *(partition.name for partition in partitions_of(path))]


def _device_number(base: Path, name: str) -> str:
    return "".join(_lines(base / "sys/class/block" / name / "dev")).strip()


def _release(base: Path, run: Runner, names: list[str]) -> None:
    """Swap off and unmount what lies on the devices `names`."""
    devices = {f"/dev/{name}" for name in names} | {f"/dev/mapper/{mapped_name(base, name)}" for name in names}
    for line in _lines(base / "proc/swaps")[1:]:
        if line.split()[0] in devices:
            _try(run, ("swapoff", line.split()[0]))
    numbers = {_device_number(base, name) for name in names}
    sources = devices | _btrfs_companions(base, names)
    mounted = []
    for line in _lines(base / "proc/self/mountinfo"):
        fields = line.split()
        source = fields[fields.index("-") + 2] if "-" in fields else ""
        if fields[2] in numbers or source in sources:
            mounted.append(fields[4].encode().decode("unicode_escape"))
    for where in reversed(mounted):  # children were mounted later
        _try(run, ("umount", where))


def _btrfs_companions(base: Path, names: list[str]) -> set[str]:
    """Return the devices of every mounted btrfs that lies on one of `names`: mountinfo names only one of them."""
    found: set[str] = set()
    for filesystem in base.glob("sys/fs/btrfs/*/devices"):
        devices = [path.name for path in filesystem.iterdir()]
        if not set(devices).isdisjoint(names):
            found.update(f"/dev/{name}" for name in devices)
            found.update(f"/dev/mapper/{mapped_name(base, name)}" for name in devices)
    return found


def _stop(base: Path, run: Runner, holder: str) -> None:
    home = base / "sys/class/block" / holder
    if holder.startswith("md"):
        _try(run, ("mdadm", "--stop", f"/dev/{holder}"))
    elif holder.startswith("dm-"):
        name, uuid = mapped_name(base, holder), "".join(_lines(home / "dm/uuid"))
        if uuid.startswith("CRYPT-"):
            _try(run, ("cryptsetup", "close", name))
        elif uuid.startswith("LVM-"):
            # By LVM, which alone takes /dev/GROUP away: no group of that name could be made while it is there. It
            # does not, where two groups have one name, or the disk was wiped beneath it.
            _try(run, ("lvchange", "--yes", "--activate", "n", f"/dev/mapper/{name}"))
            if home.exists():
                _try(run, ("dmsetup", "remove", name))
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
