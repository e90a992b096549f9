"""Reads pieces of a few files of a version out of the store, for what must be known before a node destroys anything."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from cloner_core.image.pack import decode_pack
from cloner_core.image.placement import decode_placement
from cloner_server.catalog import Catalog, Version


class StoredFiles:
    """Some files of one version, by inode number."""

    def __init__(self, catalog: Catalog, version: Version, numbers: Collection[int]) -> None:
        """Find where the files' bytes lie; looks at the placement record of every pack."""
        self._store = catalog.store
        self._packs = version.pack_map.packs
        self._places: dict[int, list[tuple[int, int, int, int]]] = defaultdict(list)  # file offset, length, pack, …
        for ordinal, pack in enumerate(self._packs):
            record = self._store.placement(version.map_digest, ordinal)
            for number, offset, at, length in decode_placement(record, version.digest, pack.digest, pack.raw_size):
                if number in numbers:
                    self._places[number].append((offset, length, ordinal, at))
        self._raw: tuple[int, bytes] = (-1, b"")  # the pack that was read last

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Return up to `size` bytes of a file from `offset` on; holes are zeros.

        Raises IntegrityError when a pack is damaged and NotFoundError when one is missing.
        """
        found = bytearray()
        for start, length, ordinal, at in sorted(self._places[number]):
            begin, end = max(start, offset), min(start + length, offset + size)
            if begin < end:
                found.extend(bytes(begin - offset - len(found)))
                found += self._pack(ordinal)[at + begin - start : at + end - start]
        return bytes(found)

    def _pack(self, ordinal: int) -> bytes:
        if self._raw[0] != ordinal:
            pack = self._packs[ordinal]
            stored = self._store.pack_path(pack.digest).read_bytes()
            self._raw = ordinal, decode_pack(stored, pack.digest, pack.raw_size)
        return self._raw[1]
