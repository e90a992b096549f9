"""What the rest of the server may ask of a store, wherever its bytes are kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from cloner_core.admin.images import CheckReport, Collected, VerifyProgress, VerifyReport
from cloner_core.admin.store import Repacked, StoreStats
from cloner_core.errors import ClonerError
from cloner_core.image.version import Base, Draft, SignedMap, VersionRecord

VersionNumber = tuple[str, int]
"""Image and number of a version."""

SizedSegment = tuple[bytes, int]
"""Digest of a segment of a tree, and its raw size in bytes."""


class StoreFullError(ClonerError):
    """The store has no room; what was being written is gone again, everything published is untouched."""


class Store(Protocol):
    """A place for images. Safe for several threads and processes at once."""

    def put_pack(self, name: bytes, data: bytes) -> bool:
        """Keep a pack; return False when it was there. Raises IntegrityError when `name` is not its digest."""

    def put_segment(self, name: bytes, raw_size: int, stored: bytes, onto: Sequence[SizedSegment] = ()) -> bool:
        """Keep a segment of a tree, a zstd frame of `raw_size` bytes with digest `name`; False when it was there.

        With `onto` the frame is what it has and those segments, which are here, have not.
        """

    def base(self, image: str) -> Base | None:
        """Return what the next capture of `image` need not send, or None when there is nothing."""

    def publish(self, draft: Draft, *, is_trusted: bool = False) -> VersionRecord:
        """Check everything, sign, and make the next version of an image appear at once.

        With `is_trusted` the packs' content is taken as the draft tells it: only for a capture in this process.
        Raises IntegrityError for what does not fit together, ConflictError when another capture was published since
        this one began; then all of it is kept for the next try.
        """

    def images(self) -> list[str]:
        """Return the names of the images that have versions, sorted."""

    def numbers(self, image: str) -> list[int]:
        """Return the numbers of the versions of `image`, rising; raises NotFoundError when there are none."""

    def last_number(self, image: str) -> int:
        """Return the last number that was given to a version of `image`, there or removed; 0 for none."""

    def listed(self) -> list[VersionNumber]:
        """Return image and number of every version that has a record, unread."""

    def version(self, image: str, number: int | None = None) -> VersionRecord:
        """Return one version, the latest when no number is given; raises NotFoundError."""

    def remove_version(self, image: str, number: int) -> None:
        """Take a version away for good: its number is never given again, its files go at the next gc.

        Raises NotFoundError when there is none; one that was removed already is no fault.
        """

    def spend_number(self, image: str, number: int) -> None:
        """Have the number of a version whose record was lost never be given again."""

    def take_back(self, image: str, number: int) -> None:
        """Undo a publish that nobody has seen: the number may be given again. Raises NotFoundError."""

    def root(self, version: bytes) -> bytes:
        """Return the encoded tree root of a version; raises NotFoundError."""

    def signed_map(self, version: bytes) -> SignedMap:
        """Return which pack map a version has at present; raises NotFoundError."""

    def pack_map(self, name: bytes) -> bytes:
        """Return the encoded pack map of this digest; raises NotFoundError."""

    def segment_path(self, name: bytes) -> Path:
        """Return the file of a compressed segment; raises NotFoundError."""

    def pack_path(self, name: bytes) -> Path:
        """Return the file of a pack; raises NotFoundError."""

    def placement(self, pack_map: bytes, ordinal: int) -> bytes:
        """Return the placement record of pack `ordinal` (from 0) of the map of this digest; raises NotFoundError."""

    def placements_path(self, pack_map: bytes) -> Path:
        """Return the file of the placement records of the map of this digest; raises NotFoundError."""

    def index_path(self, name: bytes) -> Path:
        """Return the file of a pack index; raises NotFoundError."""

    def has_whole_placements(self, pack_map: bytes) -> bool:
        """Tell whether the placement records of the map of this digest are what its tree and index give.

        Takes as long as to publish the tree. Raises NotFoundError and IntegrityError for what that needs.
        """

    def parcel_list_path(self, pack_map: bytes) -> Path:
        """Return where the names of the parcels of a pack map are kept, or would be; gone with the map."""

    def paths_of(self, image: str, number: int) -> list[Path]:
        """Return the files that a version is made of, each after what names it; raises NotFoundError."""

    @property
    def files_root(self) -> Path:
        """The directory that `paths_of` gives paths beneath."""

    def keep_packs(self, wanted: Mapping[bytes, int]) -> list[bytes]:
        """Return which of these packs (by digest: stored bytes) are not there; gc keeps the others for its grace."""

    def missing_packs(self, version: bytes) -> list[bytes]:
        """Return the packs of a version that are absent or of another size: a deploy must not begin with any."""

    def check(self, *, read_data: bool = False) -> CheckReport:
        """Verify everything published; with `read_data` also every byte of every pack."""

    def verify(self, image: str, number: int, watch: Callable[[VerifyProgress], None]) -> VerifyReport:
        """Verify one version to its last byte; `watch` is told how far it is, and ends it by raising.

        Raises NotFoundError, and IntegrityError for a record that cannot be read; all else is a fault of the report.
        """

    def stats(self) -> StoreStats:
        """Return what everything published weighs, in bounded memory."""

    def space(self) -> tuple[int, int]:
        """Return what is used of the filesystem, and what may still be written."""

    def freed(self, let_go: Collection[VersionNumber]) -> tuple[dict[str, int], int]:
        """Return the bytes of packs that only these versions need: by image, and what several of the images share."""

    def gc(
        self,
        grace_s: float,
        *,
        keep_maps: Collection[bytes] = (),
        without: Collection[VersionNumber] = (),
        dry_run: bool = False,
    ) -> Collected:
        """Remove what no published version needs and nothing touched for `grace_s`, except the maps in use.

        With `dry_run` it only counts what would go, and takes the versions `without` for removed.
        """

    def repack(self, version: bytes) -> SignedMap:
        """Write the chunks of a version into new packs, in tree order; its digest stays."""

    def repack_sparse(self, below: float, *, dry_run: bool = False) -> Repacked:
        """Write packs of which less than `below` is used anew, without what nobody uses; digests of versions stay."""
