"""A version in one file, as `image-export` writes it: read, and believed only as far as its signatures reach.

The file is a tar of a store (docs/image-format.md). Nothing of it is unpacked: its members are found, and what is in
them is checked from the signatures down.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

import msgspec

from cloner_core.decoding import UNREADABLE
from cloner_core.errors import IntegrityError, InvalidError, RefusedError
from cloner_core.image.compression import decompress
from cloner_core.image.derive import derive_placements
from cloner_core.image.digest import require_digest
from cloner_core.image.limits import MAX_MAP_BYTES, MAX_RECORD_BYTES, MAX_ROOT_BYTES, PACK_STORED_BYTES
from cloner_core.image.pack import check_entries, decode_pack
from cloner_core.image.packmap import MapBuilder, PackMap, iter_index
from cloner_core.image.tree import SegmentRef, TreeRoot, decode_root
from cloner_core.image.version import PackOffer, SignedMap, VersionRecord, verify_map, verify_record, verify_version

T = TypeVar("T")
_RECORD = re.compile(r"images/[a-z0-9._-]{1,64}/[1-9][0-9]{0,8}\.json")
_MOST_RECORD_BYTES = 64 << 20  # lists of paths are in it
_AGAIN = "take another copy of it; what was brought before is not sent again"

Show = Callable[[int, int], None]
"""Told how many bytes of packs are done, and all of them."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A version in a file: signatures, tree root, map and index are checked, and every part is there."""

    record: VersionRecord
    root_bytes: bytes
    root: TreeRoot
    pack_map: PackMap
    offers: tuple[PackOffer, ...]
    _read: Callable[[str, int], bytes]

    @property
    def stored_bytes(self) -> int:
        """Return the bytes of its packs."""
        return sum(offer.stored_size for offer in self.offers)

    def segment(self, ref: SegmentRef) -> bytes:
        """Return a segment as it is stored; raises IntegrityError when it is not what the root names."""
        stored = self._read(_segment_name(ref.digest), MAX_RECORD_BYTES)
        require_digest(self._raw(ref, stored), ref.digest, f"segment {ref.digest.hex()}")
        return stored

    def pack(self, offer: PackOffer) -> bytes:
        """Return a pack as it is stored; raises IntegrityError when it is another."""
        stored = self._read(_name("packs", offer.digest), PACK_STORED_BYTES)
        require_digest(stored, offer.digest, f"pack {offer.digest.hex()}")
        return stored

    def verify(self, show: Show = lambda done, total: None) -> None:
        """Check the whole tree, and every byte of every pack; raises IntegrityError."""
        builder = MapBuilder()
        for offer in self.offers:
            builder.add_pack(offer.digest, offer.stored_size, offer.raw_size, offer.entries)
        derive_placements(self.root, (self._raw(ref, self.segment(ref)) for ref in self.root.segments), builder)
        if builder.finish(self.pack_map.version)[0] != self.pack_map:
            raise IntegrityError("the pack map of the file is not the one its tree and packs give")
        done = 0
        for offer in self.offers:
            show(done, self.stored_bytes)
            check_entries(decode_pack(self.pack(offer), offer.digest, offer.raw_size), offer.entries)
            done += offer.stored_size

    @staticmethod
    def _raw(ref: SegmentRef, stored: bytes) -> bytes:
        return decompress(stored, ref.raw_size, f"segment {ref.digest.hex()}")


@contextmanager
def open_image_file(file: BinaryIO, name: str, keys: tuple[bytes, ...], *, hint: str = "") -> Iterator[ImageFile]:
    """Give the version in a file that stands at its begin, if the holder of one of `keys` signed it.

    `name` is how the file is called in messages; `hint` says what makes a signer trusted. Raises RefusedError for
    another signer, IntegrityError for a file that is cut off or altered, InvalidError for something else.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            yield _check(name, tar, os.fstat(file.fileno()).st_size, keys, hint)
    except tarfile.TarError as fault:
        raise IntegrityError(f"{name} is no export of an image, or it is cut off: {fault}", hint=_AGAIN) from fault


def _check(name: str, tar: tarfile.TarFile, end: int, keys: tuple[bytes, ...], hint: str) -> ImageFile:
    members: dict[str, tarfile.TarInfo] = {}
    for entry in _entries(tar, end):
        if not entry.isreg() or entry.name in members:
            raise IntegrityError(f"{name} has a member {entry.name[:200]!r} that no export has")
        members[entry.name] = entry

    def read(part: str, most: int) -> bytes:
        entry = members.get(part)
        content = tar.extractfile(entry) if entry is not None and entry.size <= most else None
        if content is None:
            raise IntegrityError(f"{name} has no {part}, or an impossible one", hint=_AGAIN)
        return content.read()

    first = next(iter(members), "")
    if not _RECORD.fullmatch(first):
        raise InvalidError(f"{name} is no export of an image: it does not begin with the record of a version")
    data = read(first, _MOST_RECORD_BYTES)
    record = _decoded(data, VersionRecord, f"the version record of {name}")
    if not record.record_signature:
        raise IntegrityError(
            f"the version record of {name} is not signed as a whole", hint="export it with a newer server"
        )
    key = bytes.fromhex(record.public_key)
    if key not in keys:
        raise RefusedError(f"{name} is signed by {record.public_key}, which is not trusted here", hint=hint)
    version = bytes.fromhex(record.version)
    verify_version(version, bytes.fromhex(record.signature), key)
    verify_record(data, key)
    signed = _decoded(
        read(f"current/{record.version}.json", _MOST_RECORD_BYTES), SignedMap, f"the signed map of {name}"
    )
    digest = bytes.fromhex(signed.map)
    pack_map = verify_map(read(_name("packmaps", digest), MAX_MAP_BYTES), bytes.fromhex(signed.signature), version, key)
    root_bytes = read(_name("roots", version), MAX_ROOT_BYTES)
    root = decode_root(root_bytes, version)
    index = read(_name("packindexes", pack_map.index_digest), MAX_MAP_BYTES)
    offers = tuple(
        PackOffer(pack.digest, pack.stored_size, pack.raw_size, entries)
        for pack, entries in iter_index(pack_map, index)
    )
    sizes = {_name("packs", offer.digest): offer.stored_size for offer in offers}
    missing = [part for part, size in sizes.items() if part not in members or members[part].size != size]
    missing += [part for part in map(_segment_name, (ref.digest for ref in root.segments)) if part not in members]
    if missing:
        whole = len(sizes) + len(root.segments)
        raise IntegrityError(f"{name} is cut off: {len(missing)} of {whole} parts are missing", hint=_AGAIN)
    return ImageFile(record, root_bytes, root, pack_map, offers, read)


def _entries(tar: tarfile.TarFile, end: int) -> Iterator[tarfile.TarInfo]:
    """Give the members; one that reaches beyond `end`, the end of the file, is none: tarfile takes its word for it."""
    for entry in tar:
        if entry.offset_data + entry.size <= end:
            yield entry


def _decoded(data: bytes, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except UNREADABLE as fault:
        raise IntegrityError(f"{what} cannot be read: {fault}") from fault


def _name(kind: str, digest: bytes) -> str:
    digits = digest.hex()
    return f"{kind}/{digits[:2]}/{digits}"


def _segment_name(digest: bytes) -> str:
    return f"{_name('segments', digest)}.zst"
