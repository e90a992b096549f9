"""Places of partitions on a disk: the solver of sizes, and the room that a table and what is kept leave.

Everything new is a whole number of MiB, which is aligned for any sector size and erase block in use.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from cloner_core.describing import describe_disk
from cloner_core.facts import Disk
from cloner_core.layout import Size
from cloner_core.messages import Cause
from cloner_core.refusals import PlanError
from cloner_core.sizes import MIB, format_bytes

_GPT_ENTRIES_BYTES = 16384  # 128 entries of 128 bytes (UEFI 2.10 §5.3.2)
_MBR_SECTORS = (1 << 32) - 1  # start and size are 32 bits each

Table = Literal["gpt", "mbr", "none"]


class Wanted(msgspec.Struct, frozen=True):
    """One partition to be placed."""

    size: Size
    least_bytes: int = 0  # raises the minimum of the size; 0: none
    kept: tuple[int, int] | None = None  # start and size in bytes of one that stays; None for a new one
    is_logical: bool = False  # the MiB before it holds the record that names it


def usable_bytes(disk: Disk, table: Table = "gpt") -> tuple[int, int]:
    """Return the start and the end of the room for partitions in bytes, both aligned to 1 MiB.

    At the end of a GPT the backup table takes its entries and one sector for its header, at the start the first MiB is
    kept; an MBR ends where its 32-bit sector numbers do.
    """
    sectors = disk.size_bytes // disk.sector_bytes
    if table == "mbr":
        end = min(sectors, _MBR_SECTORS) * disk.sector_bytes
    else:
        end = (sectors - 1 - -(-_GPT_ENTRIES_BYTES // disk.sector_bytes)) * disk.sector_bytes
    return MIB, max(end // MIB * MIB, 0)


def solve(sizes: Sequence[Size], least: Sequence[int], room_bytes: int, *, unit_bytes: int = MIB) -> list[int] | None:
    """Return the size in bytes of each item, or None when the minima do not fit into `room_bytes`.

    `least` raises the minimum of each size (0: none). Everything is a whole number of `unit_bytes`. What is left over
    goes to the weighted sizes by weight, and what one cannot take because of its maximum goes to the others.
    """
    units = [-(-max(size.min_bytes, bound) // unit_bytes) for size, bound in zip(sizes, least, strict=True)]
    left = room_bytes // unit_bytes - sum(units)
    if left < 0:
        return None

    def room(index: int) -> int:
        most = sizes[index].max_bytes
        return max(most // unit_bytes - units[index], 0) if most else 1 << 50

    open_to = {index for index, size in enumerate(sizes) if size.weight}
    while left and open_to:
        total = sum(sizes[index].weight for index in open_to)
        share = {index: left * sizes[index].weight // total for index in open_to}
        full = {index for index in open_to if room(index) <= share[index]}
        for index in full or open_to:
            taken = min(share[index], room(index))
            units[index] += taken
            left -= taken
        open_to -= full
        if not full:
            for index in sorted(open_to):  # the few units that rounding left, to the first with room
                extra = min(left, room(index))
                units[index] += extra
                left -= extra
            break
    return [unit * unit_bytes for unit in units]


def place(disk: Disk, wanted: Sequence[Wanted], table: Table = "gpt") -> list[tuple[int, int]]:
    """Return (start, size) in logical sectors of each partition of `disk`, in order, without gaps.

    What is kept stays where it is; the others lie before and behind it in the order given.
    Raises PlanError (disk-too-small) when the minima do not fit.
    """
    start, end = usable_bytes(disk, table)
    places: list[tuple[int, int]] = []
    for run, kept in _runs(wanted):
        bound = kept[0] // MIB * MIB if kept else end
        places += _placed(disk, run, start, max(bound - start, 0), is_whole=kept is None and start == MIB)
        if kept:
            places.append((kept[0] // disk.sector_bytes, kept[1] // disk.sector_bytes))
            start = max(start, -(-(kept[0] + kept[1]) // MIB) * MIB)
    return places


def _runs(wanted: Sequence[Wanted]) -> Iterator[tuple[list[Wanted], tuple[int, int] | None]]:
    """Give the new partitions between what is kept, and the kept one behind them; None behind the last ones."""
    run: list[Wanted] = []
    for one in wanted:
        if one.kept is None:
            run.append(one)
        else:
            yield run, one.kept
            run = []
    yield run, None


def _placed(
    disk: Disk, run: Sequence[Wanted], start: int, room_bytes: int, *, is_whole: bool
) -> Iterator[tuple[int, int]]:
    records = sum(one.is_logical for one in run) * MIB
    solved = solve([one.size for one in run], [one.least_bytes for one in run], max(room_bytes - records, 0))
    if solved is None or room_bytes < records:
        need = sum(-(-max(one.size.min_bytes, one.least_bytes) // MIB) for one in run) * MIB + records
        where = "" if is_whole else " beside what is kept"
        raise PlanError(
            Cause.DISK_TOO_SMALL,
            f"{describe_disk(disk)} has room for {format_bytes(room_bytes)}{where}; the layout with what the"
            f" image puts there needs at least {format_bytes(need)}",
            hint="take a larger disk, or a layout with smaller partitions",
        )
    for one, size_bytes in zip(run, solved, strict=True):
        start += MIB if one.is_logical else 0
        yield start // disk.sector_bytes, size_bytes // disk.sector_bytes
        start += size_bytes
