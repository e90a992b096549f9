"""Which disks of a golden node its layout takes, which it leaves alone, and which partitions of them are kept.

Must not describe what is on them.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from cloner_core.describing import describe_disk
from cloner_core.detection.choosing import can_be_chosen
from cloner_core.detection.seeing import Findings, Seen
from cloner_core.detection.told import Excluded
from cloner_core.facts import Disk
from cloner_core.selectors import describe_selector, why_not


class Division(msgspec.Struct, frozen=True):
    """The disks of a machine, sorted."""

    usable: tuple[Disk, ...]
    excluded: tuple[Disk, ...]  # by path, those that a selector of their own must keep untouched
    named: tuple[Disk, ...]  # all that were excluded, by path or by a selector
    kept: frozenset[str]  # paths of partitions


def divide(seen: Seen, excluded: Excluded, findings: Findings) -> Division:
    """Return the disks that a layout may take; notes those it cannot, and faults exclusions that mean nothing."""
    disks = seen.told.disks
    by_path = {path: disk for disk in disks for path in (disk.path, *disk.paths, seen.whole(disk).path)}
    partitions = {seen.partition(disk, entry).path for disk in disks for entry in disk.partitions}
    for name in excluded.devices:
        if name not in by_path and name not in partitions:
            findings.fault(name, "is neither a disk nor a partition of this machine", "lsblk shows what there is")
    alike = set()
    for select in excluded.selectors:
        meant = {
            disk.path for disk in disks if not why_not(select, msgspec.structs.replace(disk, is_mounted=False), ())
        }
        if not meant:
            findings.note(f"no disk of this machine is excluded by {describe_selector(select)}")
        alike |= meant
    out = {by_path[name].path for name in excluded.devices if name in by_path}
    for disk in disks:
        if disk.path not in out | alike and not can_be_chosen(disk):
            _tell_unusable(seen, disk, findings)
    usable = tuple(disk for disk in disks if can_be_chosen(disk) and disk.path not in out | alike)
    by_name = tuple(disk for disk in disks if can_be_chosen(disk) and disk.path in out - alike)
    named = tuple(disk for disk in disks if disk.path in out | alike)
    return Division(usable, by_name, named, frozenset(excluded.devices) & partitions)


def left_out(seen: Seen, division: Division) -> tuple[str, ...]:
    """Return where in the tree devices are mounted that are no part of the layout, as they are mounted now.

    Where the root lies on a disk that no layout can take, those that were excluded alone count.
    """
    excluded = [disk for disk in seen.told.disks if disk not in division.usable]
    mounts = _mounts_on(seen, excluded, division.kept)
    if "/" in mounts:
        mounts = _mounts_on(seen, division.named, division.kept)
    return tuple(mount for mount in mounts if mount != "/")


def _mounts_on(seen: Seen, disks: Collection[Disk], kept: Collection[str]) -> list[str]:
    """Return the mount points of what lies on `disks` and on the partitions `kept`, and on nothing else."""
    out: set[str] = set()
    others: set[str] = set()
    for disk in seen.told.disks:
        whole = seen.whole(disk)
        parts = {seen.partition(disk, entry).path for entry in disk.partitions}
        if disk in disks:
            out |= seen.above({disk.path, whole.path, *parts})
        else:
            out |= seen.above(parts & set(kept))
            others |= seen.above(parts - set(kept) or {whole.path})
    return [mount for source, mount in seen.mounted_now() if source in out - others]


def _tell_unusable(seen: Seen, disk: Disk, findings: Findings) -> None:
    blocks = (seen.whole(disk), *(seen.partition(disk, entry) for entry in disk.partitions))
    mounts = [place.mount for block in blocks for place in seen.mounted(block)]
    if disk.size_bytes and (mounts or disk.held_by):
        why = "is read-only" if disk.is_read_only else "is removable or on USB"
        told = f"{describe_disk(disk)} {why} and is not in the layout"
        findings.note(f"{told}; mounted from it: {', '.join(mounts)}" if mounts else told)
