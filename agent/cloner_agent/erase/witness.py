"""Shows that a disk is erased: looks at places before, and at the same places after.

After a way that leaves zeroes every byte of them must be zero; after another way no place may hold what it held.
Must not erase.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable
from dataclasses import dataclass

from blake3 import blake3

from cloner_agent.erase.device import PIECE_BYTES, Device
from cloner_agent.failures import StageError
from cloner_core.erasing.words import LEAVES_ZEROES, VerifyWord, Way
from cloner_core.facts import Disk
from cloner_core.messages import Cause

MIB = 1 << 20
_RANDOM_PLACES = 256
_RANDOM_BYTES = 64 << 10
_SAMPLE_UNIT_BYTES = 4096
_FULL_UNIT_BYTES = 256 << 10  # 32 MiB of digests for each terabyte
_UNIFORM, _UNREADABLE = 0, 1  # instead of a digest
_FAULTS_TOLD = 5

Seen = Callable[[int], None]
"""Told the bytes read since the last time; raises to end the reading."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What a look after an erase came to."""

    places: int
    bytes_read: int


class Witness:
    """One disk, and what was at its places before the erase."""

    def __init__(self, disk: Disk, seed: str, verify: VerifyWord) -> None:
        """Choose the places: seeded, so that a second look is at the same; all of the disk when `verify` is full."""
        self._disk = disk
        self._is_full = verify == "full"
        self._spans = [] if self._is_full else _sample(disk, seed)
        self._unit = _FULL_UNIT_BYTES if self._is_full else _SAMPLE_UNIT_BYTES
        self._before = array("Q")

    @property
    def total_bytes(self) -> int:
        """How much one look reads."""
        return self._disk.size_bytes if self._is_full else sum(size for _, size in self._spans)

    def look(self, seen: Seen = lambda _: None) -> None:
        """Remember what is at the places, piece by piece; what cannot be read is remembered as that."""
        self._before = array("Q")
        with Device(self._disk.path) as device:
            for offset, size in self._places():
                try:
                    self._before.extend(self._marks(device.read(offset, size)))
                except StageError:
                    self._before.extend([_UNREADABLE] * -(-size // self._unit))
                seen(size)

    def check(self, way: Way, *, is_full: bool = False, seen: Seen = lambda _: None) -> Checked:
        """Look again; `is_full` has all of it read, which only a way that leaves zeroes allows without a look before.

        Raises StageError: NOT_ERASED naming the places that still hold something, DISK_IO for what cannot be read.
        """
        faults: list[int] = []
        places = bytes_read = units = 0
        spans = _whole(self._disk) if is_full else self._places()
        with Device(self._disk.path) as device:
            if device.size_bytes != self._disk.size_bytes:
                said = f"{self._disk.path} had {self._disk.size_bytes} bytes and has {device.size_bytes} now"
                raise StageError(Cause.NOT_ERASED, said)
            for offset, size in spans:
                data = device.read(offset, size)
                if way in LEAVES_ZEROES:
                    is_gone = data == bytes(size)
                else:
                    marks = self._marks(data)
                    is_gone = all(map(_is_other, self._before[units : units + len(marks)], marks))
                    units += len(marks)
                if not is_gone:
                    faults.append(offset)
                places, bytes_read = places + 1, bytes_read + size
                seen(size)
        if faults:
            where = ", ".join(map(str, faults[:_FAULTS_TOLD])) + (", …" if len(faults) > _FAULTS_TOLD else "")
            what = "is not zero" if way in LEAVES_ZEROES else "holds what it held before"
            raise StageError(
                Cause.NOT_ERASED,
                f"{self._disk.path} {what} at {len(faults)} of {places} places after {way.value}: byte {where}",
            )
        return Checked(places, bytes_read)

    @property
    def unreadable(self) -> int:
        """How many pieces of the places could not be read before."""
        return self._before.count(_UNREADABLE)

    def _marks(self, data: bytes) -> list[int]:
        return [_mark(data[at : at + self._unit]) for at in range(0, len(data), self._unit)]

    def _places(self) -> list[tuple[int, int]]:
        return _whole(self._disk) if self._is_full else self._spans


def _whole(disk: Disk) -> list[tuple[int, int]]:
    return [(at, min(PIECE_BYTES, disk.size_bytes - at)) for at in range(0, disk.size_bytes, PIECE_BYTES)]


def _sample(disk: Disk, seed: str) -> list[tuple[int, int]]:
    """Return (offset, size): both ends, both ends of every partition, and places by `seed`; all within the disk."""
    chance = random.Random(f"{seed} {disk.path}")
    unit = max(disk.sector_bytes, 4096)
    last = disk.size_bytes
    wanted = [(0, MIB), (last - MIB, MIB)]
    for partition in disk.partitions:
        end = partition.start_bytes + partition.size_bytes
        wanted += [(partition.start_bytes, MIB), (end - MIB, MIB)]
    wanted += [(chance.randrange(max(last // unit, 1)) * unit, _RANDOM_BYTES) for _ in range(_RANDOM_PLACES)]
    merged: list[list[int]] = []  # [start, end]; no byte is read twice
    for offset, size in sorted(wanted):
        start = min(max(offset, 0), last) // disk.sector_bytes * disk.sector_bytes
        end = min(start + size, last)
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        elif end > start:
            merged.append([start, end])
    return [(at, min(PIECE_BYTES, end - at)) for start, end in merged for at in range(start, end, PIECE_BYTES)]


def _is_other(before: int, now: int) -> bool:
    # What was all one byte says nothing when it is so again; what could not be read must be blank to be believed.
    return now == _UNIFORM or before not in (_UNREADABLE, now)


def _mark(data: bytes) -> int:
    """Return what tells `data` from other data; the same for all that is one byte repeated."""
    if data == data[:1] * len(data):
        return _UNIFORM
    return max(int.from_bytes(blake3(data).digest(8), "little"), _UNREADABLE + 1)
