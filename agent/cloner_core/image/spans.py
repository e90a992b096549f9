"""Where the chunks of a file lie: a function of its size and its holes alone."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator

from cloner_core.errors import IntegrityError
from cloner_core.image.limits import CHUNK_BYTES, MAX_FILE_CHUNKS, MAX_FILE_HOLES

Span = tuple[int, int]  # offset in the file, length, both in bytes

_PAIR = struct.Struct("<QQ")


def encode_holes(holes: Iterable[Span]) -> bytes:
    """Return `holes` as the record holds them: pairs of little-endian u64."""
    return b"".join(_PAIR.pack(offset, length) for offset, length in holes)


def decode_holes(flat: bytes, size: int) -> list[Span]:
    """Return the holes of a file of `size` bytes; raises IntegrityError unless sorted, apart and inside it."""
    if len(flat) % _PAIR.size or len(flat) > MAX_FILE_HOLES * _PAIR.size:
        raise IntegrityError(f"a list of holes of {len(flat)} bytes is not a list of at most {MAX_FILE_HOLES} pairs")
    holes: list[Span] = []
    end = -1
    for offset, length in _PAIR.iter_unpack(flat):
        if offset <= end or not length or offset + length > size:
            raise IntegrityError(f"hole {offset}+{length} touches another, is empty or leaves its file of {size} bytes")
        end = offset + length
        holes.append((offset, length))
    return holes


def data_ranges(size: int, holes: Iterable[Span]) -> Iterator[Span]:
    """Give the ranges of a file that are not holes, in order."""
    start = 0
    for offset, length in holes:
        if offset > start:
            yield start, offset - start
        start = offset + length
    if size > start:
        yield start, size - start


class Spans:
    """The spans of a file's chunks, in order: its data ranges, cut at multiples of 1 MiB of file offset.

    Raises IntegrityError when the holes are wrong or there are too many chunks. Costs memory by the number of
    ranges, not of chunks.
    """

    __slots__ = ("_first", "_ranges", "_total", "data_bytes")

    def __init__(self, size: int, flat_holes: bytes = b"") -> None:
        """Take the size of the file and its holes as encode_holes gives them."""
        self._ranges = list(data_ranges(size, decode_holes(flat_holes, size) if flat_holes else ()))
        self._first: list[int] = []  # the number of the first chunk of each range
        self._total = 0
        self.data_bytes = 0  # the bytes that are not holes
        for offset, length in self._ranges:
            self._first.append(self._total)
            self._total += (offset + length - 1) // CHUNK_BYTES - offset // CHUNK_BYTES + 1
            self.data_bytes += length
        if self._total > MAX_FILE_CHUNKS:
            raise IntegrityError(f"a file of {size} bytes has {self._total} chunks, the most is {MAX_FILE_CHUNKS}")

    def __len__(self) -> int:
        return self._total

    def __iter__(self) -> Iterator[Span]:
        for offset, length in self._ranges:
            position, end = offset, offset + length
            while position < end:
                cut = min(end, (position // CHUNK_BYTES + 1) * CHUNK_BYTES)
                yield position, cut - position
                position = cut

    def find(self, offset: int) -> tuple[int, int]:
        """Return (number of the chunk that begins at `offset`, its length), or (-1, 0) when none begins there."""
        where = bisect_right(self._ranges, offset, key=lambda item: item[0]) - 1
        if where < 0:
            return -1, 0
        start, length = self._ranges[where]
        end = start + length
        if offset >= end or (offset != start and offset % CHUNK_BYTES):
            return -1, 0
        number = self._first[where] + offset // CHUNK_BYTES - start // CHUNK_BYTES
        return number, min(end, (offset // CHUNK_BYTES + 1) * CHUNK_BYTES) - offset
