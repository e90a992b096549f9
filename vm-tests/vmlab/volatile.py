"""A disk with a volatile write cache, as every real one has: what was not flushed may be lost with the power.

Pure apart from its medium: bytes in, bytes out, and a `random.Random` that decides what a power cut takes. Servers
put it before a machine (`nbd`) or before this machine's kernel (`fuse_disk`). Must not know either.

What a cut can do: each unflushed write is taken apart at the borders of 4 KiB pages, and each piece survives or not on
its own, whatever was written before or after it: lost, out of order, in part; some survive with part of their sectors
only (torn). Of several writes to one sector any one may be what is left, never an older one over a younger one. What it
cannot do: tear a sector, damage what was flushed, or put a write where it does not belong.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

SECTOR_BYTES = 512
PAGE_BYTES = 4096
_CHUNK_BYTES = 1 << 20
_TORN = 0.1  # of the pieces that survive
_SURVIVALS = (0.0, 0.1, 0.5, 0.9)


class Medium(Protocol):
    """What keeps its bytes without power."""

    size_bytes: int

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes."""

    def write(self, offset: int, data: bytes) -> None:
        """Keep `data`."""

    def zero(self, offset: int, length: int) -> None:
        """Keep zeros."""


class MemoryMedium:
    """Keeps its bytes in memory."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.content = bytearray(size_bytes)

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes."""
        return bytes(self.content[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        """Keep `data`."""
        self.content[offset : offset + len(data)] = data

    def zero(self, offset: int, length: int) -> None:
        """Keep zeros."""
        self.write(offset, bytes(length))


class FileMedium:
    """Keeps its bytes in a sparse file."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self.size_bytes = os.fstat(self._fd).st_size

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes."""
        return os.pread(self._fd, length, offset)

    def write(self, offset: int, data: bytes) -> None:
        """Keep `data`."""
        view = memoryview(data)
        while view:
            done = os.pwrite(self._fd, view, offset)
            view, offset = view[done:], offset + done

    def zero(self, offset: int, length: int) -> None:
        """Keep zeros; a hole of the file stays one."""
        end = offset + length
        while offset < end:
            try:
                offset = os.lseek(self._fd, offset, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole follows
                return
            stop = min(end, os.lseek(self._fd, offset, os.SEEK_HOLE), offset + _CHUNK_BYTES)
            if offset < stop:
                self.write(offset, bytes(stop - offset))
            offset = max(offset, stop)


@dataclass(frozen=True, slots=True)
class Loss:
    """What a power cut did to the bytes that were not flushed."""

    kept_bytes: int
    dropped_bytes: int
    unwritten_bytes: int = 0  # what was still in the memory of the machine, where that is known


@dataclass(frozen=True, slots=True)
class _Write:
    """One write that is not on the medium yet; it stays within one chunk."""

    offset: int
    length: int
    data: bytes | None  # None: zeros

    def part(self, start: int, end: int) -> bytes:
        """Return the bytes for `start` to `end` of the disk."""
        return bytes(end - start) if self.data is None else self.data[start - self.offset : end - self.offset]


class VolatileDisk:
    """A medium behind a volatile cache."""

    def __init__(self, medium: Medium, *, is_lying: bool = False, capacity_bytes: int = 256 << 20) -> None:
        """Take the medium.

        A lying disk answers flushes and keeps nothing for them; the rig must find it out. What exceeds
        `capacity_bytes` goes to the medium by itself, oldest chunk first, as a cache that is full must do.
        """
        self.medium = medium
        self.unflushed_bytes = 0
        self._is_lying = is_lying
        self._capacity_bytes = capacity_bytes
        self._chunks: dict[int, list[_Write]] = {}  # by number of the chunk; within one, oldest write first

    @property
    def size_bytes(self) -> int:
        """Size of the disk."""
        return self.medium.size_bytes

    def read(self, offset: int, length: int) -> bytes:
        """Return what was last written there, flushed or not."""
        self._check(offset, length)
        found = bytearray(self.medium.read(offset, length))
        for number in range(offset // _CHUNK_BYTES, (offset + length - 1) // _CHUNK_BYTES + 1):
            for write in self._chunks.get(number, ()):
                start, end = max(offset, write.offset), min(offset + length, write.offset + write.length)
                if start < end:
                    found[start - offset : end - offset] = write.part(start, end)
        return bytes(found)

    def write(self, offset: int, data: bytes, *, is_forced: bool = False) -> None:
        """Take a write; a forced one (FUA) is on the medium when this returns."""
        self._check(offset, len(data))
        for start, end in _split(offset, len(data), _CHUNK_BYTES):
            self._take(_Write(start, end - start, bytes(data[start - offset : end - offset])), is_forced)

    def zero(self, offset: int, length: int, *, is_forced: bool = False) -> None:
        """Take a write of zeros, or a discard, after which this disk reads zeros."""
        self._check(offset, length)
        for start, end in _split(offset, length, _CHUNK_BYTES):
            self._take(_Write(start, end - start, None), is_forced)

    def flush(self) -> None:
        """Put everything taken so far on the medium."""
        if not self._is_lying:
            for number in list(self._chunks):
                self._settle(number)

    def cut(self, chance: random.Random, survival: float | None = None) -> Loss:
        """Lose the power: some pieces of unflushed writes reach the medium, the rest is gone.

        `survival` is the probability of each; drawn for the whole cut when None, nothing survives often enough.
        """
        if survival is None:
            survival = chance.choice((*_SURVIVALS, chance.random()))
        kept = dropped = 0
        for writes in self._chunks.values():
            for write in writes:
                for start, end in _split(write.offset, write.length, PAGE_BYTES):
                    survived = list(_survivors(chance, survival, start, end))
                    for first, last in survived:
                        self._put(write, first, last)
                    bytes_kept = sum(last - first for first, last in survived)
                    kept, dropped = kept + bytes_kept, dropped + (end - start) - bytes_kept
        self._chunks.clear()
        self.unflushed_bytes = 0
        return Loss(kept, dropped)

    def _take(self, write: _Write, is_forced: bool) -> None:
        number = write.offset // _CHUNK_BYTES
        if is_forced and not self._is_lying:
            # What was written there before must not come over it later.
            self._settle(number)
            self._put(write, write.offset, write.offset + write.length)
            return
        self._chunks.setdefault(number, []).append(write)
        self.unflushed_bytes += write.length
        while self.unflushed_bytes > self._capacity_bytes:
            self._settle(next(iter(self._chunks)))

    def _settle(self, number: int) -> None:
        for write in self._chunks.pop(number, ()):
            self._put(write, write.offset, write.offset + write.length)
            self.unflushed_bytes -= write.length

    def _put(self, write: _Write, start: int, end: int) -> None:
        if write.data is None:
            self.medium.zero(start, end - start)
        else:
            self.medium.write(start, write.part(start, end))

    def _check(self, offset: int, length: int) -> None:
        if not (offset >= 0 and length > 0 and offset + length <= self.size_bytes):
            raise ValueError(f"{offset}+{length} is not on a disk of {self.size_bytes} bytes")


def _split(offset: int, length: int, unit: int) -> Iterator[tuple[int, int]]:
    """Give (start, end) of the parts of a range between multiples of `unit`."""
    end = offset + length
    while offset < end:
        stop = min(end, (offset // unit + 1) * unit)
        yield offset, stop
        offset = stop


def _survivors(chance: random.Random, survival: float, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Give the parts of one piece that reach the medium: all, none, or some of its sectors."""
    if chance.random() >= survival:
        return
    if chance.random() >= _TORN:
        yield start, end
        return
    for first, last in _split(start, end - start, SECTOR_BYTES):
        if chance.random() < 0.5:
            yield first, last
