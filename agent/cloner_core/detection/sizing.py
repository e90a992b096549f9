"""Sizes of a layout from those of a golden node: as they are, and the largest of each disk and group takes the rest.

The largest, not the root: where /home has most of a disk, it is /home that was meant to have what is left over.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cloner_core.layout import (
    Content,
    EspCopy,
    Filesystem,
    Kept,
    Layout,
    LogicalVolume,
    Luks,
    Nothing,
    Partition,
    Size,
    Swap,
    VolumeGroup,
    mounts_of,
)
from cloner_core.sizes import MIB

REST = Size(min_bytes=MIB, weight=1)
_FREE_PART = 50  # of a volume group: less is what rounding left


def fixed(size_bytes: int) -> Size:
    """Return exactly `size_bytes`, in whole MiB."""
    size = max(-(-size_bytes // MIB) * MIB, MIB)
    return Size(min_bytes=size, max_bytes=size)


def with_growing_partition(partitions: Sequence[Partition]) -> tuple[Partition, ...]:
    """Return the partitions of a disk, all of fixed size, with the largest that holds data taking the rest."""
    at = _largest([(one.size, _grows(one)) for one in partitions], [one.content for one in partitions])
    return tuple(
        msgspec.structs.replace(one, size=REST) if index == at else one for index, one in enumerate(partitions)
    )


def with_growing_volume(group: VolumeGroup, size_bytes: int, free_bytes: int) -> VolumeGroup:
    """Return a group, its volumes all of fixed size, with the largest taking the rest.

    What is free is left free, for snapshots: then the largest shrinks on a smaller disk, and grows on none.
    """
    at = _largest(
        [(one.size, isinstance(_inner(one.content), Filesystem)) for one in group.volumes],
        [one.content for one in group.volumes],
    )

    def sized(index: int, one: LogicalVolume) -> LogicalVolume:
        if index != at:
            return one
        is_full = free_bytes * _FREE_PART < size_bytes
        size = REST if is_full else msgspec.structs.replace(REST, max_bytes=one.size.max_bytes)
        return msgspec.structs.replace(one, size=size)

    return msgspec.structs.replace(group, volumes=tuple(sized(at, one) for at, one in enumerate(group.volumes)))


def small_esps(layout: Layout, least_bytes: int) -> list[int]:
    """Return the sizes of the ESPs that are smaller than `least_bytes`."""
    return [
        one.size.min_bytes
        for disk in layout.disks
        for one in disk.partitions
        if one.role == "esp" and not one.size.weight and one.size.min_bytes < least_bytes
    ]


def _grows(partition: Partition) -> bool:
    is_held = isinstance(partition.content, Kept | Nothing | EspCopy)
    return not is_held and partition.role != "esp" and not isinstance(_inner(partition.content), Swap)


def _inner(content: Content) -> Content:
    return content.content if isinstance(content, Luks) else content


def _largest(sizes: Sequence[tuple[Size, bool]], contents: Sequence[Content]) -> int:
    """Return the index of the largest that may grow, the root before its equals; -1 when none may."""
    ranked = [
        (size.min_bytes, "/" in mounts_of(_inner(content)), -index)
        for index, ((size, may_grow), content) in enumerate(zip(sizes, contents, strict=True))
        if may_grow
    ]
    return -max(ranked)[2] if ranked else -1
