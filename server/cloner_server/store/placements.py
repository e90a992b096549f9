"""Placement sets: the placement records of all packs of one map in one file, each found by its place in the map."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from cloner_core.errors import IntegrityError, NotFoundError
from cloner_core.image.derive import derive_placements
from cloner_core.image.packmap import MapBuilder, PackMap, iter_index
from cloner_core.image.placement import Placement, encode_placement
from cloner_core.image.tree import TreeRoot

_MAGIC = b"CLPLSET1"
_HEADER = struct.Struct("<8sI")  # magic, number of records; then a u64 offset for each, and one for the end
_OFFSET = struct.Struct("<Q")


def encode_set(pack_map: PackMap, entries: Sequence[bytes | bytearray]) -> bytes:
    """Return the set for `pack_map`, whose packs have these placement entries, in order."""
    records = [
        encode_placement(Placement(pack_map.version, pack.digest, flat))
        for pack, flat in zip(pack_map.packs, entries, strict=True)
    ]
    offset = _HEADER.size + (len(records) + 1) * _OFFSET.size
    offsets = bytearray()
    for record in records:
        offsets += _OFFSET.pack(offset)
        offset += len(record)
    offsets += _OFFSET.pack(offset)
    return b"".join((_HEADER.pack(_MAGIC, len(records)), offsets, *records))


def derive_set(root: TreeRoot, segments: Iterable[bytes], pack_map: PackMap, index: bytes) -> bytes:
    """Return the set that a tree, given by its root and raw segments, and the index of its map lead to.

    Raises IntegrityError when one of them is damaged, or they do not belong together.
    """
    builder = MapBuilder()
    for pack, entries in iter_index(pack_map, index):
        builder.add_pack(pack.digest, pack.stored_size, pack.raw_size, entries)
    placed = derive_placements(root, segments, builder)
    if builder.finish(pack_map.version)[0] != pack_map:
        raise IntegrityError("the pack map is not the one its tree and packs give")
    return encode_set(pack_map, placed)


def read_record(path: Path, ordinal: int) -> bytes:
    """Return record `ordinal` (from 0) of the set in `path`; raises NotFoundError when it has none."""
    with path.open("rb") as file:
        header = file.read(_HEADER.size)
        if len(header) != _HEADER.size or header[: len(_MAGIC)] != _MAGIC:
            raise IntegrityError(f"{path} is not a set of placements", hint="run 'cloner store check'")
        (_, count) = _HEADER.unpack(header)
        if not 0 <= ordinal < count:
            raise NotFoundError(f"pack {ordinal} is not in the map: it has {count}")
        file.seek(_HEADER.size + ordinal * _OFFSET.size)
        pair = file.read(2 * _OFFSET.size)
        if len(pair) != 2 * _OFFSET.size:
            raise IntegrityError(f"{path} is cut short", hint="run 'cloner store check'")
        start, end = (_OFFSET.unpack_from(pair, at)[0] for at in (0, _OFFSET.size))
        size = path.stat().st_size
        if not start <= end <= size:
            raise IntegrityError(f"{path} is cut short", hint="run 'cloner store check'")
        file.seek(start)
        return file.read(end - start)
