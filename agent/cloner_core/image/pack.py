"""Packs: many chunks compressed together, one zstd frame, named by the digest of its stored bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from cloner_core.errors import IntegrityError
from cloner_core.image.compression import compress, decompress
from cloner_core.image.decompressor import Decompressor
from cloner_core.image.digest import Bytes, digest, require_digest
from cloner_core.image.limits import CHUNK_BYTES, DIGEST_BYTES, PACK_RAW_BYTES, PACK_STORED_BYTES

ENTRY = struct.Struct("<32sII")  # digest of a chunk, its offset in the raw pack, its length


@dataclass(frozen=True, slots=True)
class RawPack:
    """A pack before compression."""

    raw: bytes
    entries: bytes  # ENTRY after ENTRY, sorted by offset, without gaps


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack as it is stored and sent, and what is in it."""

    digest: bytes
    stored: bytes
    raw_size: int
    entries: bytes


class PackWriter:
    """Gathers chunks into packs; a pack is closed when the next chunk would take it above 4 MiB."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._entries = bytearray()
        self._size = 0

    def add(self, name: bytes, chunk: bytes) -> RawPack | None:
        """Take a chunk of 1 byte to 1 MiB whose digest is `name`; return the pack this closed, if it did."""
        closed = self.close() if self._size + len(chunk) > PACK_RAW_BYTES else None
        self._entries += ENTRY.pack(name, self._size, len(chunk))
        self._chunks.append(chunk)
        self._size += len(chunk)
        return closed

    def close(self) -> RawPack | None:
        """Return what was gathered since the last pack, or None when that is nothing."""
        if not self._chunks:
            return None
        pack = RawPack(b"".join(self._chunks), bytes(self._entries))
        self._chunks, self._entries, self._size = [], bytearray(), 0
        return pack


def compress_pack(pack: RawPack) -> Pack:
    """Return the stored form of `pack`."""
    stored = compress(pack.raw)
    return Pack(digest(stored), stored, len(pack.raw), pack.entries)


def decode_pack(stored: Bytes, name: bytes, raw_size: int) -> bytes:
    """Return the raw bytes of the pack `name`; raises IntegrityError before a byte of a damaged one is used."""
    return decompress(stored, raw_size, _proven(stored, name, raw_size))


class PackDecoder:
    """Decodes pack after pack into the same memory, for one thread at a time: faster than `decode_pack`."""

    def __init__(self) -> None:
        """Take the memory."""
        self._decompressor = Decompressor(PACK_RAW_BYTES)

    def decode(self, stored: Bytes, name: bytes, raw_size: int) -> Bytes:
        """Return the raw bytes of the pack `name`, there until the next call; raises as `decode_pack`."""
        return self._decompressor.decompress(stored, raw_size, _proven(stored, name, raw_size))


def _proven(stored: Bytes, name: bytes, raw_size: int) -> str:
    """Return what to call the pack `name`; raises IntegrityError when its bytes are not its."""
    what = f"pack {name.hex()}"
    if not 0 < raw_size <= PACK_RAW_BYTES or not 0 < len(stored) <= PACK_STORED_BYTES:
        raise IntegrityError(f"{what} claims {raw_size} bytes from {len(stored)}, more than any pack has")
    require_digest(stored, name, what)
    return what


def iter_entries(entries: bytes, raw_size: int) -> Iterator[tuple[bytes, int, int]]:
    """Give (digest, offset, length) of each chunk; raises IntegrityError unless sorted, apart and inside the pack."""
    if len(entries) % ENTRY.size:
        raise IntegrityError(f"a pack index of {len(entries)} bytes is not a list of {ENTRY.size}-byte entries")
    end = 0
    for name, offset, length in ENTRY.iter_unpack(entries):
        if offset < end or not 0 < length <= CHUNK_BYTES or offset + length > raw_size:
            raise IntegrityError(f"chunk {name.hex()} at {offset}+{length} overlaps another or leaves its pack")
        end = offset + length
        yield name, offset, length


def check_entries(raw: bytes, entries: bytes) -> None:
    """Raise IntegrityError unless every chunk that `entries` claims is in the raw pack and has its digest."""
    view = memoryview(raw)
    for name, offset, length in iter_entries(entries, len(raw)):
        require_digest(view[offset : offset + length], name, f"chunk {name.hex()[: DIGEST_BYTES * 2]} in its pack")
