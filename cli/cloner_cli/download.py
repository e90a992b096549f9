"""A version from the server, over its API: verified as a node verifies it, then handed out part by part."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass

from cloner_cli.api import Api
from cloner_core.errors import IntegrityError, InvalidError
from cloner_core.image.digest import parse_digest, require_digest
from cloner_core.image.packmap import PackMap, PackRef
from cloner_core.image.tree import TreeRoot, decode_root
from cloner_core.image.version import verify_map, verify_version
from cloner_core.messages import VersionRef

_KEY = re.compile(r"[0-9a-f]{64}")


class ServerParts:
    """The parts of one version; satisfies PackSource and TreeSource. Nothing that comes is believed.

    Each thread of each process has a connection of its own: two that share one would mix their answers.
    """

    def __init__(self, connect: Callable[[], Api], version: VersionRef) -> None:
        """Take what opens a connection; none is opened before something is asked for."""
        self._connect = connect
        self._base = f"/v1/versions/{version.digest}/{version.pack_map}"
        self._local = threading.local()

    def root(self, digest: str) -> bytes:
        """Return the tree root."""
        return self._get("root", digest)

    def pack_map(self, digest: str) -> bytes:
        """Return the pack map."""
        return self._get("packmap", digest)

    def segment(self, digest: bytes) -> bytes:
        """Return a compressed segment of the tree."""
        return self._get("segment", digest.hex())

    def placement(self, pack: PackRef) -> bytes:
        """Return the placement record of a pack."""
        return self._get("placement", pack.digest.hex())

    def fetch(self, ordinal: int, pack: PackRef) -> tuple[bytes, bytes]:
        """Return (stored bytes, placement record) of a pack."""
        return self._get("pack", pack.digest.hex()), self.placement(pack)

    def _get(self, part: str, digest: str) -> bytes:
        opened: tuple[int, Api] | None = getattr(self._local, "opened", None)
        if opened is None or opened[0] != os.getpid():  # a worker's memory begins as a copy of ours
            opened = self._local.opened = (os.getpid(), self._connect())
        return opened[1].get_bytes(f"{self._base}/{part}/{digest}")


@dataclass(frozen=True, slots=True)
class Verified:
    """A version whose signatures, root and map were checked; its segments and packs are when they come."""

    ref: VersionRef
    root: TreeRoot
    pack_map: PackMap


def parse_key(text: str) -> bytes:
    """Return the public key that 64 hexadecimal digits are; raises InvalidError."""
    if not _KEY.fullmatch(text):
        raise InvalidError(f"'{text}' is not a public key: want 64 hexadecimal digits")
    return bytes.fromhex(text)


def verify_parts(parts: ServerParts, ref: VersionRef, key: bytes) -> Verified:
    """Return a version that the holder of `key` signed; raises IntegrityError before anything of it is used."""
    version, wanted_map = parse_digest(ref.digest), parse_digest(ref.pack_map)
    try:
        signature, map_signature = bytes.fromhex(ref.signature), bytes.fromhex(ref.pack_map_signature)
    except ValueError as fault:
        raise IntegrityError(f"the signatures of {ref.image}:{ref.number} are not well-formed: {fault}") from fault
    verify_version(version, signature, key)
    root = decode_root(parts.root(ref.digest), version)
    data = parts.pack_map(ref.pack_map)
    require_digest(data, wanted_map, f"pack map {ref.pack_map}")
    return Verified(ref, root, verify_map(data, map_signature, version, key))
