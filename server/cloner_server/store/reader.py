"""Reading a local store: everything a node, a capture or a check asks for, found by digest or by name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from cloner_core.decoding import UNREADABLE
from cloner_core.errors import IntegrityError, NotFoundError
from cloner_core.image.compression import decompress
from cloner_core.image.digest import require_digest
from cloner_core.image.packmap import PackMap, decode_map, iter_index
from cloner_core.image.tree import TreeRoot, decode_root
from cloner_core.image.version import Base, PackOffer, SignedMap, VersionRecord, check_image_name
from cloner_server.store.blobs import Blobs, Files
from cloner_server.store.placements import derive_set, read_record

_NUMBER = re.compile(r"([1-9][0-9]{0,8})\.json\Z")
_SPENT = re.compile(r"([1-9][0-9]{0,8})\.removed\Z")
_LATE = re.compile(r"([0-9a-f]{64})\.late\Z")


class StoreReader:
    """A local store, read."""

    def __init__(self, root: Path, reserve_bytes: int = 0) -> None:
        """Take the directory of the store; it is made when missing. `reserve_bytes`: see `Files`."""
        self.files = Files(root, reserve_bytes)
        self.packs = Blobs(self.files, "packs")
        self.segments = Blobs(self.files, "segments", ".zst")
        self.roots = Blobs(self.files, "roots")
        self.maps = Blobs(self.files, "packmaps")
        self.indexes = Blobs(self.files, "packindexes")
        self.placement_sets = Blobs(self.files, "placements")
        self._images = root / "images"
        self._current = root / "current"

    def images(self) -> list[str]:
        """Return the names of the images that have versions, sorted."""
        if not self._images.is_dir():
            return []
        return sorted(path.name for path in self._images.iterdir() if self._numbers(path))

    def numbers(self, image: str) -> list[int]:
        """Return the numbers of the versions of `image`, rising; raises NotFoundError when there are none."""
        numbers = self._numbers(self._images / check_image_name(image))
        if not numbers:
            raise NotFoundError(f"there is no image {image}", hint=f"images are {', '.join(self.images()) or 'none'}")
        return numbers

    def _numbers(self, directory: Path) -> list[int]:
        if not directory.is_dir():
            return []
        return _numbered(directory, _NUMBER)

    def spent_numbers(self, image: str) -> list[int]:
        """Return the numbers of versions that were removed, rising: none of them is given again."""
        directory = self._images / check_image_name(image)
        return _numbered(directory, _SPENT) if directory.is_dir() else []

    def spent_paths(self) -> list[Path]:
        """Return what is left of removed versions: a file each, which keeps its number from being given again."""
        return sorted(self._images.glob("*/*.removed"))

    def record_path(self, image: str, number: int) -> Path:
        """Return the file that is the version `number` of `image`."""
        return self._images / check_image_name(image) / f"{number}.json"

    def spent_path(self, image: str, number: int) -> Path:
        """Return what the file of a version becomes when it is removed."""
        return self._images / check_image_name(image) / f"{number}.removed"

    def last_number(self, image: str) -> int:
        """Return the last number that was given to a version of `image`, there or removed; 0 for none."""
        directory = self._images / check_image_name(image)
        return max((*self._numbers(directory), *self.spent_numbers(image)), default=0)

    def late_path(self, image: str, version: bytes) -> Path:
        """Return the file that says that a capture of `image` came too late to be published."""
        return self._images / check_image_name(image) / f"{version.hex()}.late"

    def late_paths(self) -> list[Path]:
        """Return every file that `late_path` names."""
        return sorted(self._images.glob("*/*.late"))

    def late_versions(self, image: str) -> list[bytes]:
        """Return the trees that came too late to be published and are whole in the store, until a gc takes them."""
        directory = self._images / check_image_name(image)
        names = sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
        return [bytes.fromhex(match.group(1)) for match in map(_LATE.match, names) if match]

    def version(self, image: str, number: int | None = None) -> VersionRecord:
        """Return one version, the latest when no number is given; raises NotFoundError."""
        numbers = self.numbers(image)
        chosen = numbers[-1] if number is None else number
        try:
            data = self.record_path(image, chosen).read_bytes()
        except FileNotFoundError:
            listed = ", ".join(map(str, numbers[-10:]))
            raise NotFoundError(f"image {image} has no version {chosen}", hint=f"it has {listed}") from None
        try:
            record = msgspec.json.decode(data, type=VersionRecord)
        except UNREADABLE as error:
            raise IntegrityError(f"the record of version {image}/{chosen} cannot be read: {error}") from error
        if (record.image, record.number) != (image, chosen):
            raise IntegrityError(f"the record of version {image}/{chosen} is of {record.image}/{record.number}")
        return record

    def records(self) -> Iterator[VersionRecord]:
        """Give every published version; one that is removed meanwhile is passed over."""
        for image, number in self.listed():
            try:
                record = self.version(image, number)
            except NotFoundError:
                continue
            yield record

    def listed(self) -> list[tuple[str, int]]:
        """Return image and number of every published version, unread."""
        return [(image, number) for image in self.images() for number in self._numbers(self._images / image)]

    def current_path(self, version: bytes) -> Path:
        """Return the file that says which map a version has."""
        return self._current / f"{version.hex()}.json"

    def signed_map(self, version: bytes) -> SignedMap:
        """Return which pack map a version has at present; raises NotFoundError."""
        try:
            data = self.current_path(version).read_bytes()
        except FileNotFoundError:
            raise NotFoundError(f"version {version.hex()} has no pack map") from None
        try:
            signed = msgspec.json.decode(data, type=SignedMap)
        except UNREADABLE as error:
            raise IntegrityError(f"the pack map of version {version.hex()} cannot be read: {error}") from error
        if signed.version != version.hex():
            raise IntegrityError(f"the pack map of version {version.hex()} is of version {signed.version}")
        return signed

    def root(self, version: bytes) -> bytes:
        """Return the encoded tree root of a version; raises NotFoundError."""
        return self.roots.read(version)

    def tree_root(self, version: bytes) -> TreeRoot:
        """Return the tree root of a version, verified; raises NotFoundError, IntegrityError."""
        return decode_root(self.root(version), version)

    def raw_segments(self, root: TreeRoot) -> Iterator[bytes]:
        """Give the raw bytes of each segment of `root`; whoever uses them checks their digest."""
        for ref in root.segments:
            yield decompress(self.segments.read(ref.digest), ref.raw_size, f"segment {ref.digest.hex()}")

    def pack_map(self, name: bytes) -> bytes:
        """Return the encoded pack map of this digest; raises NotFoundError."""
        return self.maps.read(name)

    def map_of(self, name: bytes) -> PackMap:
        """Return the pack map of this digest, verified against it; raises NotFoundError, IntegrityError."""
        data = self.pack_map(name)
        require_digest(data, name, f"pack map {name.hex()}")
        return decode_map(data)

    def current_map(self, version: bytes) -> PackMap:
        """Return the pack map a version has at present, signature unchecked; raises NotFoundError."""
        pack_map = self.map_of(bytes.fromhex(self.signed_map(version).map))
        if pack_map.version != version:
            raise IntegrityError(f"the pack map of version {version.hex()} is of {pack_map.version.hex()}")
        return pack_map

    def offers(self, version: bytes) -> Iterator[PackOffer]:
        """Give the packs of a version and the chunks it uses of each."""
        pack_map = self.current_map(version)
        index = self.indexes.read(pack_map.index_digest)
        for pack, entries in iter_index(pack_map, index):
            yield PackOffer(pack.digest, pack.stored_size, pack.raw_size, entries)

    def whole_offers(self, version: bytes) -> list[PackOffer]:
        """Return the `offers` of a version whose packs are there and not known to be damaged."""
        return [offer for offer in self.offers(version) if self.packs.has(offer.digest, offer.stored_size)]

    def base(self, image: str) -> Base | None:
        """Return what the next capture of `image` need not send, or None when there is nothing.

        What is missing, or was found damaged, is not in it: a capture sends it again.
        """
        packs, also = list[PackOffer](), list[bytes]()
        try:
            version = bytes.fromhex(self.version(image).version)
            packs += self.whole_offers(version)
        except (NotFoundError, IntegrityError):  # none yet, or it cannot be read
            version = b""
        for late in self.late_versions(image):
            try:
                packs += self.whole_offers(late)
            except (NotFoundError, IntegrityError):
                continue  # half collected
            also.append(late)
        number = self.last_number(image)
        return Base(version, tuple(packs), number, tuple(also)) if number or also else None

    def missing_packs(self, version: bytes) -> list[bytes]:
        """Return the packs of a version that are absent or damaged as far as is known: no deploy may begin with any."""
        packs = self.current_map(version).packs
        return [pack.digest for pack in packs if not self.packs.has(pack.digest, pack.stored_size)]

    def parcel_list_path(self, pack_map: bytes) -> Path:
        """Return where the names of the parcels of a pack map are kept, or would be; gone with the map."""
        return self.files.root / "parcels" / f"{pack_map.hex()}.list"

    @property
    def files_root(self) -> Path:
        """The directory of the store."""
        return self.files.root

    def paths_of(self, image: str, number: int) -> list[Path]:
        """Return the files that a version is made of, each after what names it; raises NotFoundError."""
        version = bytes.fromhex(self.version(image, number).version)
        name = bytes.fromhex(self.signed_map(version).map)
        pack_map = self.map_of(name)
        return [
            self.record_path(image, number),
            self.current_path(version),
            self.roots.existing_path(version),
            *(self.segments.existing_path(ref.digest) for ref in self.tree_root(version).segments),
            self.maps.existing_path(name),
            self.indexes.existing_path(pack_map.index_digest),
            self.placement_sets.existing_path(name),
            *(self.packs.existing_path(pack.digest) for pack in pack_map.packs),
        ]

    def keep_packs(self, wanted: Mapping[bytes, int]) -> list[bytes]:
        """Return which of these packs (by digest: stored bytes) are not there; gc keeps the others for its grace."""
        with self.files.locked():
            return [name for name, size in wanted.items() if not self.packs.touch(name, size)]

    def segment_path(self, name: bytes) -> Path:
        """Return the file of a compressed segment; raises NotFoundError."""
        return self.segments.existing_path(name)

    def pack_path(self, name: bytes) -> Path:
        """Return the file of a pack; raises NotFoundError."""
        return self.packs.existing_path(name)

    def placement(self, pack_map: bytes, ordinal: int) -> bytes:
        """Return the placement record of pack `ordinal` (from 0) of the map of this digest; raises NotFoundError."""
        return read_record(self.placement_sets.existing_path(pack_map), ordinal)

    def placements_path(self, pack_map: bytes) -> Path:
        """Return the file of the placement records of the map of this digest; raises NotFoundError."""
        return self.placement_sets.existing_path(pack_map)

    def index_path(self, name: bytes) -> Path:
        """Return the file of a pack index; raises NotFoundError."""
        return self.indexes.existing_path(name)

    def has_whole_placements(self, pack_map: bytes) -> bool:
        """Tell whether the placement records of the map of this digest are what its tree and index give.

        Takes as long as to publish the tree. Raises NotFoundError and IntegrityError for what that needs.
        """
        kept, found = self.placement_sets.read(pack_map), self.map_of(pack_map)
        root = self.tree_root(found.version)
        return kept == derive_set(root, self.raw_segments(root), found, self.indexes.read(found.index_digest))


def _numbered(directory: Path, pattern: re.Pattern[str]) -> list[int]:
    matches = (pattern.match(path.name) for path in directory.iterdir())
    return sorted(int(match.group(1)) for match in matches if match)
