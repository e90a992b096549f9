"""The repair code: combinations of a parcel's blocks, as many as anybody needs, each cheap to make.

The blocks of a parcel are put in three orders. A combination is the XOR of nine *prefixes*: for each order three
places are drawn, and each stands for the XOR of all blocks before it. So a combination costs nine XORs whatever it
covers, and any receiver that misses m blocks needs m combinations and one or two more, whichever blocks it misses.
An odd number of places for each order matters: with an even one, rows of the equations depend on each other.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache, reduce
from math import gcd
from operator import ixor

from bitarray import bitarray
from blake3 import blake3

from cloner_core.image.digest import Bytes

ORDERS = 3
PLACES = 3
_PLACES = struct.Struct(f"!{ORDERS * PLACES}I")
_NAME = struct.Struct("!III")
# 2³² times the fractional parts of irrational numbers of three quadratic fields, (√5−1)/2, √2−1 and (√13−3)/2: blocks
# next to each other lie far apart in each order, and those close in one are far apart in the others.
_STRIDES = (0x9E3779B9, 0x6A09E667, 0x4D82B7BF)


@lru_cache(64)
def strides(blocks: int) -> tuple[int, ...]:
    """Return for each order the stride s: place j of it holds block j·s mod `blocks`."""
    found = []
    for fraction in _STRIDES:
        stride = max(1, blocks * fraction >> 32)
        while gcd(stride, blocks) != 1:
            stride += 1
        found.append(stride)
    return tuple(found)


def places(parcel: int, combination: int, blocks: int) -> tuple[int, ...]:
    """Return the places of a combination, those of each order in turn; each from 0 (no block) to `blocks` (all)."""
    drawn = _PLACES.unpack(blake3(_NAME.pack(parcel, combination, blocks)).digest(_PLACES.size))
    return tuple([place % (blocks + 1) for place in drawn])


class Workbench:
    """Where the blocks of one parcel after another are laid out to be added up in place.

    New memory and new views for each parcel would cost more than the sums. Memory: the largest parcel that was laid
    out, and a quarter of it for the views. Not for two threads at once.
    """

    def __init__(self) -> None:
        self._block_bytes = 0
        self._room = memoryview(b"")
        self._blocks: list[bitarray] = []

    def lay(self, data: Bytes, block_bytes: int) -> list[bitarray]:
        """Return copies of the blocks of a parcel, the last filled up with zeros; they last until the next parcel."""
        count = -(-len(data) // block_bytes)
        if block_bytes != self._block_bytes or count > len(self._blocks):
            self._block_bytes = block_bytes
            self._room = memoryview(bytearray(count * block_bytes))
            self._blocks = [
                bitarray(buffer=self._room[at : at + block_bytes]) for at in range(0, len(self._room), block_bytes)
            ]
        size, end = len(data), count * block_bytes
        self._room[:size] = data
        self._room[size:end] = bytes(end - size)
        return self._blocks[:count]


def prefixes(blocks: Sequence[bitarray], order: int, wanted: Iterable[int]) -> dict[int, bitarray]:
    """Return the XOR of the blocks before each of the `wanted` places of an order."""
    count = len(blocks)
    stride = strides(count)[order]
    found: dict[int, bitarray] = {}
    total, at = bitarray(len(blocks[0])), 0
    # In place: new memory for each sum would cost more, in page faults, than the sums.
    for place in sorted(wanted):
        reduce(ixor, [blocks[one % count] for one in range(at * stride, place * stride, stride)], total)
        at = place
        found[place] = total.copy()
    return found


def combine_prefixes(blocks: Sequence[bitarray], drawn: Sequence[Sequence[int]]) -> list[bitarray]:
    """Return the XOR of the prefixes at the places of each combination in `drawn`."""
    sums = [bitarray(len(blocks[0])) for _ in drawn]
    for order in range(ORDERS):
        at = order * PLACES
        before = prefixes(blocks, order, {place for its in drawn for place in its[at : at + PLACES]})
        for total, its in zip(sums, drawn, strict=True):
            reduce(ixor, [before[place] for place in its[at : at + PLACES]], total)
    return sums


def make_combinations(
    bench: Workbench, data: Bytes, block_bytes: int, parcel: int, numbers: Sequence[int]
) -> list[bytes]:
    """Return the payloads of the combinations `numbers` of the parcel that has the bytes `data`."""
    blocks = bench.lay(data, block_bytes)
    sums = combine_prefixes(blocks, [places(parcel, number, len(blocks)) for number in numbers])
    return [one.tobytes() for one in sums]
