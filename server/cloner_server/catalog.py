"""The image store as tasks and handlers need it: signed versions by name, their parts by digest, nothing else.

Knows which parts a version is made of, so that a node gets those of its own version and no other.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from cloner_core.errors import NotFoundError
from cloner_core.image.digest import parse_digest
from cloner_core.image.packmap import PackMap, decode_map
from cloner_core.image.tree import TreeRoot, decode_root
from cloner_core.messages import VersionRef
from cloner_server.store.protocol import Store

_KEPT = 16  # versions whose lists of parts are held in memory


class Part(StrEnum):
    """The kinds of stored things a version is made of."""

    ROOT = "root"
    SEGMENT = "segment"
    PACK_MAP = "pack map"
    PACK = "pack"
    PLACEMENT = "placement"


@dataclass(frozen=True, slots=True)
class Version:
    """The parts of one version by one of its pack maps."""

    digest: bytes
    root: TreeRoot
    map_digest: bytes
    pack_map: PackMap
    segments: frozenset[bytes]
    packs: dict[bytes, int]  # digest → ordinal in the map


@dataclass(frozen=True, slots=True)
class Catalog:
    """Looks versions up; safe to use from several threads."""

    store: Store
    _kept: OrderedDict[tuple[bytes, bytes], Version] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def version_ref(self, image: str, number: int) -> VersionRef:
        """Return the signed version as an agent is told it; raises NotFoundError."""
        record = self.store.version(image, number)
        signed = self.store.signed_map(bytes.fromhex(record.version))
        return VersionRef(
            image=image,
            number=number,
            digest=record.version,
            signature=record.signature,
            pack_map=signed.map,
            pack_map_signature=signed.signature,
        )

    def find(self, ref: VersionRef) -> Version:
        """Return the parts of a version by the pack map `ref` names; raises NotFoundError or IntegrityError.

        A repack meanwhile does not matter: a task keeps the map it was told.
        """
        return self.find_by_map(parse_digest(ref.digest), parse_digest(ref.pack_map))

    def find_by_map(self, version: bytes, map_digest: bytes) -> Version:
        """Return the parts of the version of this digest by one of its maps; raises NotFoundError or IntegrityError."""
        key = version, map_digest
        with self._lock:
            if (kept := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return kept
        found = self._read(*key)
        with self._lock:
            self._kept[key] = found
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return found

    def locate(self, version: Version, part: Part, digest: bytes) -> Path | bytes:
        """Return a part of `version`, as a file or as bytes; raises NotFoundError when it is of another, or missing."""
        match part:
            case Part.ROOT if digest == version.digest:
                return self.store.root(digest)
            case Part.PACK_MAP if digest == version.map_digest:
                return self.store.pack_map(digest)
            case Part.SEGMENT if digest in version.segments:
                return self.store.segment_path(digest)
            case Part.PACK if digest in version.packs:
                return self.store.pack_path(digest)
            case Part.PLACEMENT if digest in version.packs:
                return self.store.placement(version.map_digest, version.packs[digest])
        raise NotFoundError(f"the version has no {part.value} {digest.hex()}")

    def _read(self, version: bytes, map_digest: bytes) -> Version:
        root = decode_root(self.store.root(version), version)
        pack_map = decode_map(self.store.pack_map(map_digest), version)
        return Version(
            digest=version,
            root=root,
            map_digest=map_digest,
            pack_map=pack_map,
            segments=frozenset(segment.digest for segment in root.segments),
            packs={pack.digest: ordinal for ordinal, pack in enumerate(pack_map.packs)},
        )
