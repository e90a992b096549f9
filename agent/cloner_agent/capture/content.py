"""The bytes of one file into chunks, and the proof that it stood still meanwhile."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Protocol

from cloner_agent.capture.holes import HoleFinder
from cloner_core.image.limits import CHUNK_BYTES
from cloner_core.image.spans import Spans, encode_holes

ATTEMPTS = 3
_SIGNATURE = slice(4086, 4096)  # the last ten bytes of the first page, mkswap(8)
_SWAP_MAGICS = (b"SWAPSPACE2", b"SWAP-SPACE")
_SWAP_MIN_BYTES = 40960

# A file this small is read as data even where it has none: it saves a system call on half of all files.
_NEVER_SPARSE_BYTES = 4096


class ChunkKeeper(Protocol):
    """Keeps chunks; see packing.PackStream."""

    def room(self, length: int) -> memoryview:
        """Return memory to read the next chunk into."""

    def keep(self, length: int) -> bytes:
        """Keep what was read there and return its digest."""


class SwapFileError(Exception):
    """The file is swap space: its content means nothing on another machine. Caught by the walker."""


@dataclass(frozen=True, slots=True)
class Content:
    """What was read of a file."""

    status: os.stat_result  # what the file said of itself before this reading
    size: int
    holes: bytes = b""  # as the record holds them
    chunks: bytes = b""
    data_bytes: int = 0
    is_exact: bool = True  # False when it changed during every reading


def read_content(fd: int, status: os.stat_result, keeper: ChunkKeeper, holes: HoleFinder | None) -> Content:
    """Read a regular file; without a finder of holes they are read as zeros.

    Reads again when the file changes meanwhile, three times in all; then the content is not exact, but is what one more
    reading saw. Raises SwapFileError when it is swap space.
    """
    for _ in range(ATTEMPTS):
        content = _read_once(fd, status, keeper, holes)
        after = os.fstat(fd)
        if content.size == status.st_size and _is_unchanged(status, after):
            return content
        status = after
    return replace(_read_once(fd, status, keeper, holes), is_exact=False)


def refuse_swap_file(fd: int, size: int) -> None:
    """Raise SwapFileError when the file of `size` bytes is swap space; reads its signature alone."""
    if size >= _SWAP_MIN_BYTES:
        _refuse_swap(size, os.pread(fd, _SIGNATURE.stop - _SIGNATURE.start, _SIGNATURE.start))


def _is_unchanged(before: os.stat_result, after: os.stat_result) -> bool:
    return (
        before.st_mtime_ns == after.st_mtime_ns
        and before.st_ctime_ns == after.st_ctime_ns
        and before.st_size == after.st_size
    )


def _read_once(fd: int, status: os.stat_result, keeper: ChunkKeeper, finder: HoleFinder | None) -> Content:
    """Return the content of `status.st_size` bytes, or of fewer where the file ends before."""
    size = status.st_size
    if not size:
        return Content(status, 0)  # no chunk is empty
    holes = finder.find(fd, size, status.st_dev) if finder and size > _NEVER_SPARSE_BYTES else []
    if not holes and size <= CHUNK_BYTES:
        view = keeper.room(size)
        read = os.preadv(fd, [view], 0)
        _refuse_swap(size, view[:read][_SIGNATURE])
        return Content(status, read, b"", keeper.keep(read) if read else b"", read)
    flat = encode_holes(holes)
    digests = bytearray()
    data_bytes = 0
    for offset, length in Spans(size, flat):
        view = keeper.room(length)
        read = os.preadv(fd, [view], offset)
        if offset == 0:
            _refuse_swap(size, view[:read][_SIGNATURE])
        digests += keeper.keep(read) if read else b""
        data_bytes += read
        if read < length:
            size = offset + read
            flat = encode_holes(hole for hole in holes if hole[0] < size)
            break
    return Content(status, size, flat, bytes(digests), data_bytes)


def _refuse_swap(size: int, signature: bytes | memoryview) -> None:
    if size >= _SWAP_MIN_BYTES and signature in _SWAP_MAGICS:
        raise SwapFileError
