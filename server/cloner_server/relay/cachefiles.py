"""How a relay's cache lies on its disk, and what a sender reads of it.

Packs are named by their digest, so that versions share them. What goes before a pack in a parcel belongs to one pack
map and lies beside that.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cloner_core.errors import NotFoundError
from cloner_core.image.digest import parse_digest


@dataclass(frozen=True, slots=True)
class CacheReader:
    """What of a cache's directory a sender needs; satisfies `PackFiles`."""

    root: Path

    @property
    def packs(self) -> Path:
        """The directory of all packs."""
        return self.root / "packs"

    @property
    def maps(self) -> Path:
        """The directory that has one for each pack map."""
        return self.root / "maps"

    def map_path(self, pack_map: bytes) -> Path:
        """Return where a pack map is, or would be."""
        return self.maps / pack_map.hex() / "map"

    def list_path(self, pack_map: bytes) -> Path:
        """Return where the list of the parcels of a map is, or would be."""
        return self.maps / pack_map.hex() / "parcels"

    def record_path(self, pack_map: bytes, ordinal: int) -> Path:
        """Return where the placement record of a pack of the map is, or would be."""
        return self.maps / pack_map.hex() / "placements" / str(ordinal)

    def where_pack(self, name: bytes) -> Path:
        """Return where a pack is, or would be."""
        return self.packs / name.hex()

    def pack_map(self, name: bytes) -> bytes:
        """Return the encoded pack map of this digest; raises NotFoundError."""
        return _read(self.map_path(name), f"pack map {name.hex()}")

    def pack_path(self, name: bytes) -> Path:
        """Return the file of a pack; raises NotFoundError."""
        path = self.where_pack(name)
        if not path.is_file():
            raise _missing(f"pack {name.hex()}")
        return path

    def placement(self, pack_map: bytes, ordinal: int) -> bytes:
        """Return the placement record of pack `ordinal` (from 0) of the map of this digest; raises NotFoundError."""
        return _read(self.record_path(pack_map, ordinal), f"placement record {ordinal} of {pack_map.hex()}")


def name_of(path: Path) -> bytes:
    """Return the digest that a file or directory of the cache is named by; raises InvalidError for other names."""
    return parse_digest(path.name)


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise _missing(what) from None


def _missing(what: str) -> NotFoundError:
    return NotFoundError(f"the cache has not {what}")
