"""Placement records: which bytes of one pack go where in which inodes. Derived by the server, needs no trust.

A wrong record can at worst waste time: the restorer checks every entry against the signed tree before it writes,
and each chunk against its digest.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from cloner_core.errors import IntegrityError
from cloner_core.image.digest import Bytes
from cloner_core.image.limits import CHUNK_BYTES

_MAGIC = b"CLPLACE1"
_HEADER = struct.Struct("<8s32s32sI")  # magic, version, pack, number of entries
ENTRY = struct.Struct("<IQII")  # inode number, offset in the file, offset in the raw pack, length

Entry = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the chunks of one pack go, for one version."""

    version: bytes
    pack: bytes
    entries: Bytes  # ENTRY after ENTRY, sorted by inode, then by offset in the file

    def __iter__(self) -> Iterator[Entry]:
        return ENTRY.iter_unpack(self.entries)

    def __len__(self) -> int:
        return len(self.entries) // ENTRY.size


def placement_size(entries: int) -> int:
    """Return the bytes of a placement record with this many entries."""
    return _HEADER.size + entries * ENTRY.size


def encode_placement(placement: Placement) -> bytes:
    """Return the record as it is stored and sent."""
    return _HEADER.pack(_MAGIC, placement.version, placement.pack, len(placement)) + bytes(placement.entries)


def decode_placement(data: Bytes, version: bytes, pack: bytes, raw_size: int) -> Placement:
    """Return the placement of `pack`, whose raw size is `raw_size`, in `version`.

    Raises IntegrityError unless it is of this version and pack, sorted, and stays inside the pack. That the inodes
    exist and the chunks begin where it says only the tree can tell.
    """
    what = f"the placement of pack {pack.hex()}"
    if len(data) < _HEADER.size:
        raise IntegrityError(f"{what} has {len(data)} bytes, less than its header")
    magic, of_version, of_pack, count = _HEADER.unpack_from(data)
    if (magic, of_version, of_pack) != (_MAGIC, version, pack):
        raise IntegrityError(f"{what} belongs to another pack or version, or is none")
    if len(data) != placement_size(count):
        raise IntegrityError(f"{what} has {len(data)} bytes, wanted {placement_size(count)} for {count} entries")
    placement = Placement(version, pack, memoryview(data)[_HEADER.size :])
    before = (0, 0)
    for inode, file_offset, pack_offset, length in placement:
        if (inode, file_offset) <= before and before != (0, 0):
            raise IntegrityError(f"{what} is not sorted at inode {inode}, offset {file_offset}")
        if not inode or not 0 < length <= CHUNK_BYTES or pack_offset + length > raw_size:
            raise IntegrityError(f"{what}: entry {pack_offset}+{length} of inode {inode} leaves the pack")
        before = (inode, file_offset)
    return placement
