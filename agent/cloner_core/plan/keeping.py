"""Partitions that are kept: where they lie now, what is on them, and why one cannot be kept.

Must not change anything of them: number, place, type, identifiers, name and flags go into the new table as they are.
"""

from __future__ import annotations

from typing import Final

from cloner_core.describing import describe_disk
from cloner_core.facts import Disk, DiskPartition
from cloner_core.layout import DiskLayout, Kept
from cloner_core.messages import Cause
from cloner_core.plan.values import PlannedPartition, PlannedVolume, partition_path
from cloner_core.refusals import PlanError

_TABLES: Final = {"gpt": "gpt", "mbr": "dos"}
"""What blkid and sfdisk call the tables of a layout."""


def kept_places(wanted: DiskLayout, disk: Disk) -> dict[int, tuple[int, int]]:
    """Return start and size in bytes of each kept partition, by its index in `wanted`.

    Raises PlanError (layout) when the disk has no such partition, another kind of table, or keeps them in another
    order than the layout has them.
    """
    found: dict[int, tuple[int, int]] = {}
    for index, one in enumerate(wanted.partitions):
        if not isinstance(one.content, Kept):
            continue
        if disk.table != _TABLES[wanted.table]:
            raise PlanError(
                Cause.LAYOUT,
                f"{describe_disk(disk)} has {f'the table {disk.table!r}' if disk.table else 'no table'};"
                f" the layout keeps partition {one.content.number} of the table '{wanted.table}'",
                hint="give the layout the table that the disk has, or keep nothing",
            )
        there = _partition(disk, one.content.number)
        found[index] = (there.start_bytes, there.size_bytes)
    starts = [start for _, (start, _) in sorted(found.items())]
    if starts != sorted(starts):
        raise PlanError(
            Cause.LAYOUT,
            f"{describe_disk(disk)} has the partitions to be kept in another order than the layout",
            hint="name kept partitions in the order in which they lie on the disk",
        )
    return found


def kept_entry(content: Kept, disk: Disk, place: tuple[int, int]) -> PlannedPartition:
    """Return the entry of a kept partition in the new table."""
    there = _partition(disk, content.number)
    return PlannedPartition(
        number=there.number,
        device=partition_path(disk.path, there.number),
        role="data",
        kind=there.type.removeprefix("0x"),
        part_uuid=there.part_uuid,
        start_sectors=place[0],
        size_sectors=place[1],
        name=there.name,
        is_kept=True,
        is_active=there.is_active,
        attributes=there.attributes,
    )


def kept_volume(content: Kept, entry: PlannedPartition, disk: Disk) -> list[PlannedVolume]:
    """Return the volume of a kept partition that the clone mounts; nothing when it mounts none.

    Raises PlanError (layout) when there is no one filesystem on it that could be mounted.
    """
    if not content.mount:
        return []
    there = [one for one in disk.signatures if one.device == entry.device and one.uuid and one.kind]
    if len(there) != 1:
        told = " and ".join(one.kind for one in there) or "nothing that is known"
        raise PlanError(
            Cause.LAYOUT,
            f"{entry.device} is to be kept and mounted at '{content.mount}', and holds {told}",
            hint="mount only what holds one filesystem; leave 'mount' out to keep it unmounted",
        )
    return [
        PlannedVolume(
            device=entry.device,
            id=f"kept {entry.device}",
            filesystem=there[0].kind,
            uuid=there[0].uuid,
            size_bytes=entry.size_sectors * disk.sector_bytes,
            sector_bytes=disk.sector_bytes,
            part_uuid=entry.part_uuid,
            mount=content.mount,
            options=content.options,
            is_kept=True,
        )
    ]


def _partition(disk: Disk, number: int) -> DiskPartition:
    there = next((one for one in disk.partitions if one.number == number), None)
    if there is None:
        has = ", ".join(str(one.number) for one in disk.partitions) or "none"
        raise PlanError(
            Cause.LAYOUT,
            f"{describe_disk(disk)} has no partition {number} that could be kept; it has {has}",
            hint="keep what is there, or take the kept partition out of the layout for this node",
        )
    return there
