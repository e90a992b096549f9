"""The pack map: which packs hold the chunks of a version. Replaceable: repacking gives another map, the same version.

The map itself is short, so that a node can hold it whatever the image: a node needs only the list of packs. The
pack index beside it (chunk, pack, offset) stays on the server, which derives the placement records from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import Meta

from cloner_core.decoding import UNREADABLE
from cloner_core.errors import IntegrityError
from cloner_core.image.digest import digest, require_digest
from cloner_core.image.limits import FORMAT, MAX_MAP_BYTES, MAX_PACKS, PACK_RAW_BYTES, PACK_STORED_BYTES
from cloner_core.image.pack import ENTRY, iter_entries
from cloner_core.image.tree import Digest


class PackRef(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One pack as the map names it."""

    digest: Digest  # of its stored bytes
    stored_size: Annotated[int, Meta(ge=1, le=PACK_STORED_BYTES)]
    raw_size: Annotated[int, Meta(ge=1, le=PACK_RAW_BYTES)]
    chunks: Annotated[int, Meta(ge=1, le=PACK_RAW_BYTES)]  # how many of its chunks this version uses


class PackMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The packs of one version, in the order in which its tree first needs them."""

    format: int
    version: Digest
    index_digest: Digest  # of the pack index
    packs: Annotated[tuple[PackRef, ...], Meta(max_length=MAX_PACKS)]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(PackMap)


def encode_map(pack_map: PackMap) -> bytes:
    """Return the one encoding of `pack_map`; the plain digest of it names the map."""
    return _encoder.encode(pack_map)


def map_digest(data: bytes) -> bytes:
    """Return the name of an encoded pack map."""
    return digest(data)


def packs_digest(pack_map: PackMap) -> bytes:
    """Return one digest for all packs of the map in its order: what a receipt says was verified."""
    return digest(b"".join(pack.digest for pack in pack_map.packs))


def decode_map(data: bytes, version: bytes | None = None) -> PackMap:
    """Return the pack map in `data`, of `version` when one is given; raises IntegrityError when anything is wrong."""
    what = f"the pack map of version {version.hex()}" if version else "a pack map"
    if len(data) > MAX_MAP_BYTES:
        raise IntegrityError(f"a pack map of {len(data)} bytes is above {MAX_MAP_BYTES}")
    try:
        pack_map = _decoder.decode(data)
    except UNREADABLE as error:
        raise IntegrityError(f"{what} cannot be read: {error}") from error
    faults = [] if _encoder.encode(pack_map) == data else ["it is not in its canonical form"]
    if pack_map.format != FORMAT:
        faults.append(f"format {pack_map.format} seen, {FORMAT} known")
    if version is not None and pack_map.version != version:
        faults.append(f"it belongs to version {pack_map.version.hex()}")
    if len({pack.digest for pack in pack_map.packs}) != len(pack_map.packs):
        faults.append("it names a pack twice")
    if faults:
        raise IntegrityError(f"{what}: {'; '.join(faults)}")
    return pack_map


def iter_index(pack_map: PackMap, index: bytes) -> Iterator[tuple[PackRef, bytes]]:
    """Give each pack of the map with its entries of the pack index; raises IntegrityError when they do not fit."""
    require_digest(index, pack_map.index_digest, f"the pack index of version {pack_map.version.hex()}")
    wanted = sum(pack.chunks for pack in pack_map.packs) * ENTRY.size
    if len(index) != wanted:
        raise IntegrityError(f"the pack index has {len(index)} bytes, wanted {wanted}")
    start = 0
    for pack in pack_map.packs:
        end = start + pack.chunks * ENTRY.size
        yield pack, index[start:end]
        start = end


class MapBuilder:
    """Finds each chunk of a tree, in tree order, among candidate packs, and so makes the canonical pack map.

    The map follows from the tree and the candidates alone: packs in order of first use, only chunks that are used;
    of several packs with one chunk, the candidate given first serves it.
    """

    # Where a chunk is, in one small integer: a million chunks cost 70 MB less than with tuples.
    _LENGTH_BITS = 21
    _OFFSET_BITS = 22

    def __init__(self) -> None:
        self._candidates: list[tuple[bytes, int, int]] = []  # digest, stored size, raw size
        self._numbers: dict[bytes, int] = {}  # digest → place among the candidates
        self._where: dict[bytes, int] = {}
        self._ordinals: dict[int, int] = {}  # candidate → place in the map
        self._entries: list[dict[int, tuple[bytes, int]]] = []  # of each pack of the map: offset → digest, length

    def add_pack(self, name: bytes, stored_size: int, raw_size: int, entries: bytes) -> None:
        """Offer a pack and what it holds, or more of what it holds: two versions may use different chunks of it.

        Raises IntegrityError when the entries cannot be of one pack.
        """
        candidate = self._numbers.setdefault(name, len(self._candidates))
        if candidate == len(self._candidates):
            self._candidates.append((name, stored_size, raw_size))
        elif self._candidates[candidate] != (name, stored_size, raw_size):
            raise IntegrityError(f"pack {name.hex()} is offered with two sizes")
        for chunk, offset, length in iter_entries(entries, raw_size):
            packed = (candidate << self._OFFSET_BITS | offset) << self._LENGTH_BITS | length
            self._where.setdefault(chunk, packed)

    def use(self, chunk: bytes, length: int) -> tuple[int, int]:
        """Return (place of the pack in the map, offset in it) of the chunk the tree needs next.

        Raises IntegrityError when no candidate has it in this length.
        """
        packed = self._where.get(chunk)
        if packed is None or packed & ((1 << self._LENGTH_BITS) - 1) != length:
            raise IntegrityError(
                f"chunk {chunk.hex()} of {length} bytes is in none of the packs", hint="capture the image again"
            )
        offset = packed >> self._LENGTH_BITS & ((1 << self._OFFSET_BITS) - 1)
        candidate = packed >> (self._LENGTH_BITS + self._OFFSET_BITS)
        ordinal = self._ordinals.get(candidate)
        if ordinal is None:
            ordinal = self._ordinals[candidate] = len(self._entries)
            self._entries.append({})
        self._entries[ordinal].setdefault(offset, (chunk, length))
        return ordinal, offset

    def finish(self, version: bytes) -> tuple[PackMap, bytes]:
        """Return the map of `version` over what was used, and its pack index."""
        index = bytearray()
        packs: list[PackRef] = []
        for candidate, ordinal in self._ordinals.items():
            entries = self._entries[ordinal]
            for offset in sorted(entries):
                chunk, length = entries[offset]
                index += ENTRY.pack(chunk, offset, length)
            packs.append(PackRef(*self._candidates[candidate], len(entries)))
        return PackMap(FORMAT, version, digest(index), tuple(packs)), bytes(index)
