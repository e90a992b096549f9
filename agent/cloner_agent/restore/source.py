"""Where a restore gets its packs and its tree: a server, a multicast session, or a directory."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from cloner_core.errors import IntegrityError
from cloner_core.image.digest import Bytes
from cloner_core.image.packmap import PackRef


class PackSource(Protocol):
    """Gives packs. Used in worker processes made by fork(2), from two threads each.

    A source with connections opens them where it is first used, never before: one shared by two processes would
    mix their answers.
    """

    def fetch(self, ordinal: int, pack: PackRef) -> tuple[Bytes, Bytes]:
        """Return (stored bytes, placement record) of pack `ordinal` of the map; neither is believed.

        Blocks until they are there. Raises ClonerError when they cannot be had.
        """


class TreeSource(Protocol):
    """Gives the segments of a tree."""

    def segment(self, digest: bytes) -> bytes:
        """Return the compressed segment whose raw bytes have this digest; not believed. Raises ClonerError."""


class DirectorySource:
    """Both, from the directory of a store: for tests, benches, and media that carry an image.

    The layout is that of docs/image-format.md, "A store on disk". `pack_map` is the digest of the map.
    """

    def __init__(self, root: Path, pack_map: bytes) -> None:
        """Take the directory of the store and the map whose placements are wanted."""
        self._root = root
        self._map = pack_map

    def segment(self, digest: bytes) -> bytes:
        """Return a compressed segment."""
        return self._read(self._path("segments", digest, ".zst"))

    def fetch(self, ordinal: int, pack: PackRef) -> tuple[bytes, bytes]:
        """Return a pack and its placement record."""
        stored = self._read(self._path("packs", pack.digest))
        with self._path("placements", self._map).open("rb") as file:
            file.seek(12 + 8 * ordinal)
            bounds = file.read(16)
            start, end = int.from_bytes(bounds[:8], "little"), int.from_bytes(bounds[8:], "little")
            file.seek(start)
            return stored, file.read(end - start)

    def _path(self, kind: str, name: bytes, suffix: str = "") -> Path:
        digits = name.hex()
        return self._root / kind / digits[:2] / (digits + suffix)

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise IntegrityError(f"{path} is missing", hint="run 'cloner store check'") from None
