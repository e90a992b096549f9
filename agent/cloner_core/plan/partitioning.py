"""Places of partitions on a disk: the solver of sizes, and the GPT's own room.

Everything is a whole number of MiB, which is aligned for any sector size and erase block in use.
"""

from __future__ import annotations

from collections.abc import Sequence

from cloner_core.describing import describe_disk
from cloner_core.facts import Disk
from cloner_core.layout import Size
from cloner_core.messages import Cause
from cloner_core.refusals import PlanError
from cloner_core.sizes import MIB, format_bytes

_GPT_ENTRIES_BYTES = 16384  # 128 entries of 128 bytes (UEFI 2.10 §5.3.2)


def usable_bytes(disk: Disk) -> tuple[int, int]:
    """Return the start and the end of the room for partitions in bytes, both aligned to 1 MiB.

    At the end the backup table takes its entries and one sector for its header, at the start the first MiB is kept.
    """
    sectors = disk.size_bytes // disk.sector_bytes
    backup_sectors = 1 + -(-_GPT_ENTRIES_BYTES // disk.sector_bytes)
    end = (sectors - backup_sectors) * disk.sector_bytes
    return MIB, max(end // MIB * MIB, 0)


def solve(sizes: Sequence[Size], least: Sequence[int], room_bytes: int) -> list[int] | None:
    """Return the size in bytes of each partition, or None when the minima do not fit into `room_bytes`.

    `least` raises the minimum of each size (0: none). What is left over goes to the weighted sizes by weight, and
    what one cannot take because of its maximum goes to the others.
    """
    units = [_up(max(size.min_bytes, bound)) for size, bound in zip(sizes, least, strict=True)]
    left = room_bytes // MIB - sum(units)
    if left < 0:
        return None
    open_to = {index for index, size in enumerate(sizes) if size.weight}
    while left and open_to:
        total = sum(sizes[index].weight for index in open_to)
        share = {index: left * sizes[index].weight // total for index in open_to}
        room = {index: _room(sizes[index], units[index]) for index in open_to}
        full = {index for index in open_to if room[index] <= share[index]}
        for index in full or open_to:
            units[index] += min(share[index], room[index])
            left -= min(share[index], room[index])
        open_to -= full
        if not full:
            for index in sorted(open_to):  # the few MiB that rounding left, to the first with room
                extra = min(left, _room(sizes[index], units[index]))
                units[index] += extra
                left -= extra
            break
    return [unit * MIB for unit in units]


def place(disk: Disk, sizes: Sequence[Size], least: Sequence[int]) -> list[tuple[int, int]]:
    """Return (start, size) in logical sectors of each partition of `disk`, in order, without gaps.

    Raises PlanError (disk-too-small) when the minima do not fit.
    """
    start, end = usable_bytes(disk)
    solved = solve(sizes, least, max(end - start, 0))
    if solved is None:
        need = sum(_up(max(size.min_bytes, bound)) for size, bound in zip(sizes, least, strict=True)) * MIB
        raise PlanError(
            Cause.DISK_TOO_SMALL,
            f"{describe_disk(disk)} has room for {format_bytes(max(end - start, 0))}; the layout with what the"
            f" image puts there needs at least {format_bytes(need)}",
            hint="take a larger disk, or a layout with smaller partitions",
        )
    places = []
    for size_bytes in solved:
        places.append((start // disk.sector_bytes, size_bytes // disk.sector_bytes))
        start += size_bytes
    return places


def _up(size_bytes: int) -> int:
    return -(-size_bytes // MIB)


def _room(size: Size, units: int) -> int:
    return max(size.max_bytes // MIB - units, 0) if size.max_bytes else 1 << 50
