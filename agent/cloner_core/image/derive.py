"""From a tree and candidate packs to placements: the one pass that checks a whole tree and places every chunk."""

from __future__ import annotations

from collections.abc import Iterable

from cloner_core.image.checker import TreeChecker, check_cut
from cloner_core.image.limits import DIGEST_BYTES
from cloner_core.image.packmap import MapBuilder
from cloner_core.image.placement import ENTRY
from cloner_core.image.tree import TreeRoot, iter_segment


def derive_placements(root: TreeRoot, segments: Iterable[bytes], builder: MapBuilder) -> list[bytearray]:
    """Return the placement entries of each pack, in the order of the map that `builder` then gives.

    `segments` gives the raw bytes of each segment of `root` in order. Raises IntegrityError when they are not one
    valid tree, or when a chunk of it is in no pack.
    """
    checker = TreeChecker(root.filesystems)
    placements: list[bytearray] = []
    previous = None
    for ref, raw in zip(root.segments, segments, strict=True):
        for inode, record_bytes in iter_segment(raw, ref):
            if previous is not None:
                check_cut(previous, record_bytes)
                previous = None
            checker.add(inode)
            chunks = inode.chunks
            if not chunks:
                continue
            spans = ((0, inode.size),) if len(chunks) == DIGEST_BYTES and not inode.holes else inode.spans()
            start = 0
            for offset, length in spans:
                ordinal, pack_offset = builder.use(chunks[start : start + DIGEST_BYTES], length)
                start += DIGEST_BYTES
                if ordinal == len(placements):
                    placements.append(bytearray())
                placements[ordinal] += ENTRY.pack(inode.number, offset, pack_offset, length)
        previous = ref
    checker.finish(root)
    return placements
