"""Digests: every thing of an image is named by BLAKE3, 32 bytes, shown as 64 lower-case hexadecimal digits."""

from __future__ import annotations

import re

from blake3 import blake3

from cloner_core.errors import IntegrityError, InvalidError
from cloner_core.image.limits import DIGEST_BYTES

# The version is named in a domain of its own, so that no chunk, pack or segment can pass for a tree root.
VERSION_CONTEXT = "cloner 1 version"

Bytes = bytes | bytearray | memoryview

_HEX = re.compile(r"[0-9a-f]{64}\Z")


def digest(data: Bytes) -> bytes:
    """Return the name of a chunk, pack, segment, pack map or pack index: plain BLAKE3 of its bytes."""
    return blake3(data).digest()


def version_digest(root: Bytes) -> bytes:
    """Return the digest of the version whose tree root has these bytes (BLAKE3 in derive-key mode)."""
    return blake3(root, derive_key_context=VERSION_CONTEXT).digest()


def require_digest(data: Bytes, wanted: bytes, what: str) -> None:
    """Raise IntegrityError unless `data` has the plain digest `wanted`; `what` names it to a person."""
    seen = digest(data)
    if seen != wanted:
        raise IntegrityError(
            f"{what} is damaged: its bytes have digest {seen.hex()}, wanted {wanted.hex()}",
            hint="run 'cloner store check --read-data' on the server",
        )


def parse_digest(text: str) -> bytes:
    """Return the 32 bytes of 64 hexadecimal digits; raises InvalidError for anything else."""
    if not _HEX.match(text):
        raise InvalidError(f"{text[:80]!r} is not a digest: wanted {DIGEST_BYTES * 2} lower-case hexadecimal digits")
    return bytes.fromhex(text)
