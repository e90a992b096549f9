"""Identifiers derived from the seed of an attempt: the same seed gives the same plan on server and node."""

from __future__ import annotations

from uuid import UUID

from blake3 import blake3

_CONTEXT = "cloner 2026 identifiers of a plan"


def identifier(seed: str, purpose: str) -> str:
    """Return a lower-case UUID of version 4's shape for `purpose`; `seed` is 64 hex digits."""
    return str(UUID(bytes=_derive(seed, purpose)[:16], version=4))


def volume_id(seed: str, purpose: str) -> str:
    """Return a FAT volume serial as blkid prints it, "1A2B-3C4D"; `seed` is 64 hex digits."""
    digits = _derive(seed, purpose)[:4].hex().upper()
    return f"{digits[:4]}-{digits[4:]}"


def md_uuid(uuid: str) -> str:
    """Return an array's UUID as mdadm and udev's rules spell it: "0a1b2c3d:4e5f6071:8293a4b5:c6d7e8f9"."""
    digits = uuid.replace("-", "")
    return ":".join(digits[at : at + 8] for at in range(0, 32, 8))


def _derive(seed: str, purpose: str) -> bytes:
    key = bytes.fromhex(seed)
    if len(key) != 32:
        raise ValueError(f"a seed is 32 bytes, not {len(key)}")
    digest: bytes = blake3(key + purpose.encode(), derive_key_context=_CONTEXT).digest()
    return digest
