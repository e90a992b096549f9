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
from operator import xor

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


def prefixes(blocks: Sequence[int], order: int, wanted: Iterable[int]) -> dict[int, int]:
    """Return the XOR of the blocks (numbers of their bytes) before each of the `wanted` places of an order."""
    count = len(blocks)
    stride = strides(count)[order]
    found, total, at = {}, 0, 0
    # Sums between two places are dropped at once: lists of them all would cost more in page faults than in XORs.
    for place in sorted(wanted):
        total = reduce(xor, [blocks[one * stride % count] for one in range(at, place)], total)
        at = place
        found[place] = total
    return found


def read_blocks(data: Bytes, block_bytes: int) -> list[int]:
    """Return the blocks of a parcel as numbers; the last is filled up with zeros."""
    view, read = memoryview(data), int.from_bytes
    return [read(view[at : at + block_bytes], "little") for at in range(0, len(data), block_bytes)]


def combine_prefixes(blocks: Sequence[int], drawn: Sequence[Sequence[int]]) -> list[int]:
    """Return the XOR of the prefixes at the places of each combination in `drawn`."""
    sums = [0] * len(drawn)
    for order in range(ORDERS):
        at = order * PLACES
        before = prefixes(blocks, order, {place for its in drawn for place in its[at : at + PLACES]})
        sums = [
            total ^ before[its[at]] ^ before[its[at + 1]] ^ before[its[at + 2]]
            for total, its in zip(sums, drawn, strict=True)
        ]
    return sums


def make_combinations(data: Bytes, block_bytes: int, parcel: int, numbers: Sequence[int]) -> list[bytes]:
    """Return the payloads of the combinations `numbers` of the parcel that has the bytes `data`."""
    blocks = read_blocks(data, block_bytes)
    sums = combine_prefixes(blocks, [places(parcel, number, len(blocks)) for number in numbers])
    return [one.to_bytes(block_bytes, "little") for one in sums]
