"""Mends a parcel: which combinations give which missing block, and the blocks themselves.

Counting (`Equations`) needs no data and is cheap; a driver may have `mend` done by another process.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from bitarray import bitarray

from cloner_core.multicast.combining import PLACES, Workbench, combine_prefixes, places, strides

_GROUP_BITS = 5


class Equations:
    """What combinations say of the blocks that are missing: linear equations over GF(2)."""

    def __init__(self, parcel: int, blocks: int, missing: Sequence[int]) -> None:
        """`missing` holds the numbers of blocks, sorted."""
        self.missing = tuple(missing)
        self.used: list[int] = []
        """The combinations that said something new."""
        self.parcel = parcel
        self._blocks = blocks
        self._mask = (1 << len(missing)) - 1
        self._rows: list[tuple[int, int]] = []  # pivot bit, row: bits of missing blocks, above them those of `used`
        self._orders = [self._order(stride) for stride in strides(blocks)]

    def _order(self, stride: int) -> tuple[list[int], list[int]]:
        """Return where the missing blocks lie in an order, and which of them come before each of these places."""
        inverse = pow(stride, -1, self._blocks)
        laid = sorted((block * inverse % self._blocks, bit) for bit, block in enumerate(self.missing))
        before = [0]
        for _, bit in laid:
            before.append(before[-1] ^ 1 << bit)
        return [place for place, _ in laid], before

    @property
    def rank(self) -> int:
        """How many missing blocks are worth of equations there are."""
        return len(self._rows)

    @property
    def is_solvable(self) -> bool:
        return len(self._rows) == len(self.missing)

    def add(self, combination: int) -> bool:
        """Take a combination; return whether it says something the others do not."""
        drawn = places(self.parcel, combination, self._blocks)
        row = 0
        for order, (laid, before) in enumerate(self._orders):
            for place in drawn[order * PLACES : (order + 1) * PLACES]:
                row ^= before[bisect_left(laid, place)]
        row |= 1 << len(self.missing) + len(self.used)
        for pivot, other in self._rows:
            if row & pivot:
                row ^= other
        bits = row & self._mask
        if not bits:
            return False
        self._rows.append((bits & -bits, row))
        self.used.append(combination)
        return True

    def solve(self) -> list[tuple[int, int]]:
        """Return for each missing block its number and which of `used` (bits) add up to it; needs `is_solvable`."""
        solved: list[tuple[int, int]] = []
        for pivot, unsolved in reversed(self._rows):
            row = unsolved
            for other_pivot, other in solved:
                if row & other_pivot:
                    row ^= other
            solved.append((pivot, row))
        width = len(self.missing)
        return [(self.missing[pivot.bit_length() - 1], row >> width) for pivot, row in solved]


def mend(
    bench: Workbench,
    buffer: memoryview,
    block_bytes: int,
    equations: Equations,
    payloads: Mapping[int, bytes],
) -> None:
    """Write the missing blocks of a parcel into `buffer`; `payloads` are those of the combinations, by number."""
    blocks = bench.lay(buffer, block_bytes)
    for block in equations.missing:
        blocks[block].setall(0)
    said = combine_prefixes(blocks, [places(equations.parcel, number, len(blocks)) for number in equations.used])
    for at, number in enumerate(equations.used):
        said[at] ^= bitarray(buffer=payloads[number])
    solution = equations.solve()
    _add_sums([blocks[block] for block, _ in solution], [mask for _, mask in solution], said)
    for block in equations.missing:
        start, end = block * block_bytes, min((block + 1) * block_bytes, len(buffer))
        # A false combination may say more than the last block has room for: the digest finds it out.
        buffer[start:end] = memoryview(blocks[block])[: end - start]


def _add_sums(totals: list[bitarray], masks: Sequence[int], values: Sequence[bitarray]) -> None:
    """Add to each total the values whose bits its mask has, by tables of groups of values (four Russians)."""
    low = (1 << _GROUP_BITS) - 1
    for start in range(0, len(values), _GROUP_BITS):
        table = [bitarray(len(values[0]))]
        for value in values[start : start + _GROUP_BITS]:
            table += [value ^ other for other in table]
        for at, mask in enumerate(masks):
            totals[at] ^= table[mask >> start & low]
