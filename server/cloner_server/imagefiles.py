"""Files of a published version, put together from its packs: the few that say something of the image as a whole.

Reads through placements, as a node does; what is asked for is bounded.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from cloner_core.errors import RefusedError
from cloner_core.image.compression import decompress
from cloner_core.image.inode import Inode, Kind
from cloner_core.image.pack import decode_pack
from cloner_core.image.placement import decode_placement
from cloner_core.image.tree import TreeRoot, iter_segment
from cloner_core.sizes import format_bytes
from cloner_server.catalog import Version
from cloner_server.store.protocol import Store

MAX_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Listed:
    """One regular file of a tree."""

    number: int  # of its inode
    size: int


def list_files(store: Store, version: Version, folders: tuple[str, ...]) -> dict[str, Listed]:
    """Return the regular files beneath `folders` ("boot/", "usr/lib/modules/"), by path without a leading slash."""
    begins, found = tuple(map(os.fsencode, folders)), {}
    for inode in iter_inodes(store, version.root):
        if inode.kind is Kind.FILE and inode.path.startswith(begins):
            found[os.fsdecode(inode.path)] = Listed(inode.number, inode.size)
    return found


def iter_inodes(store: Store, root: TreeRoot) -> Iterator[Inode]:
    """Give the records of a verified root in order, a segment in memory at a time; each is checked by its digest."""
    for ref in root.segments:
        raw = decompress(store.segment_path(ref.digest).read_bytes(), ref.raw_size, f"segment {ref.digest.hex()}")
        for inode, _ in iter_segment(raw, ref):
            yield inode


def read_files(store: Store, version: Version, wanted: Collection[Listed]) -> dict[int, bytes]:
    """Return the content of `wanted` by inode number; raises RefusedError for more than `MAX_BYTES` in all."""
    total = sum(one.size for one in wanted)
    if total > MAX_BYTES:
        raise RefusedError(f"{format_bytes(total)} of an image at once are more than is read here")
    contents = {one.number: bytearray(one.size) for one in wanted}
    for ordinal, pack in enumerate(version.pack_map.packs):
        record = store.placement(version.map_digest, ordinal)
        pieces = [
            piece
            for piece in decode_placement(record, version.digest, pack.digest, pack.raw_size)
            if piece[0] in contents
        ]
        if not pieces:
            continue
        raw = decode_pack(store.pack_path(pack.digest).read_bytes(), pack.digest, pack.raw_size)
        for number, offset, start, length in pieces:
            contents[number][offset : offset + length] = raw[start : start + length]
    return {number: bytes(content) for number, content in contents.items()}
