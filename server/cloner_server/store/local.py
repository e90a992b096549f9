"""The store in a local directory, and the sink that captures straight into it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path

from cloner_core.admin.images import CheckReport, Collected, VerifyReport
from cloner_core.admin.store import Repacked, StoreStats
from cloner_core.errors import IntegrityError, NotFoundError, RefusedError
from cloner_core.image.compression import compress, decompress
from cloner_core.image.digest import require_digest
from cloner_core.image.limits import MAX_RECORD_BYTES, ONTO_MOST, PACK_STORED_BYTES, SEGMENT_RAW_BYTES
from cloner_core.image.pack import Pack
from cloner_core.image.tree import SegmentDelta, SegmentRef
from cloner_core.image.version import Base, Draft, SignedMap, Signer, VersionRecord
from cloner_server.durable import sync_directory
from cloner_server.store.protocol import SizedSegment, VersionNumber
from cloner_server.store.publish import Clock, publish
from cloner_server.store.reader import StoreReader
from cloner_server.store.repacking import repack_sparse
from cloner_server.store.stats import freed, measure
from cloner_server.store.upkeep import Watch, check, gc, repack, verify


def _now() -> datetime:
    return datetime.now(UTC)


class LocalStore(StoreReader):
    """A store in a directory; satisfies protocol.Store."""

    def __init__(
        self, root: Path, signer: Signer | None = None, *, clock: Clock = _now, reserve_bytes: int = 0
    ) -> None:
        """Take the directory, and the key that signs when versions are to be published.

        `reserve_bytes` of its filesystem are left free, a tenth of it at most: others write there too.
        """
        super().__init__(root, reserve_bytes)
        self._signer = signer
        self._clock = clock

    def put_pack(self, name: bytes, data: bytes) -> bool:
        """Keep a pack; return False when it was there. Raises IntegrityError when `name` is not its digest."""
        if len(data) > PACK_STORED_BYTES:
            raise RefusedError(f"a pack of {len(data)} bytes is above {PACK_STORED_BYTES}")
        require_digest(data, name, f"pack {name.hex()}")
        return self.packs.put(name, data)

    def put_segment(self, name: bytes, raw_size: int, stored: bytes, onto: Sequence[SizedSegment] = ()) -> bool:
        """Keep a segment of a tree, a zstd frame of `raw_size` bytes with digest `name`; False when it was there.

        With `onto` the frame is what it has and those segments have not. Raises NotFoundError when one of them is not
        here, IntegrityError when what it gives is not `name`, RefusedError above a bound.
        """
        bound = SEGMENT_RAW_BYTES if onto else MAX_RECORD_BYTES
        if not all(0 < size <= bound for size in (raw_size, *(size for _, size in onto))):
            raise RefusedError(f"a segment of {raw_size} bytes, or one that it builds on, is above {bound}")
        if len(onto) > ONTO_MOST:
            raise RefusedError(f"a segment that builds on {len(onto)} others is above {ONTO_MOST}")
        what = f"segment {name.hex()}"
        raw = decompress(stored, raw_size, what, b"".join(self._raw_segment(*other) for other in onto))
        require_digest(raw, name, what)
        return self.segments.put(name, compress(raw) if onto else stored)

    def _raw_segment(self, name: bytes, raw_size: int) -> bytes:
        return decompress(self.segments.read(name), raw_size, f"segment {name.hex()}")

    def publish(self, draft: Draft, *, is_trusted: bool = False) -> VersionRecord:
        """Check everything, sign, and make the next version of an image appear at once; see `Store`."""
        return publish(self, draft, self._key(), self._clock, is_trusted=is_trusted)

    def remove_version(self, image: str, number: int) -> None:
        """Take a version away for good: its number is never given again, its files go at the next gc.

        Raises NotFoundError when there is none; one that was removed already is no fault.
        """
        path, spent = self.record_path(image, number), self.spent_path(image, number)
        with self.files.locked(), self.files.numbering():  # no publisher is between choosing a number and taking it
            try:
                path.rename(spent)
            except FileNotFoundError:
                if not spent.exists():
                    raise NotFoundError(f"image {image} has no version {number}") from None
            sync_directory(path.parent)

    def spend_number(self, image: str, number: int) -> None:
        """Have the number of a version whose record was lost never be given again."""
        with self.files.locked(), self.files.numbering():
            self.files.create(self.spent_path(image, number), b"")

    def take_back(self, image: str, number: int) -> None:
        """Undo a publish that nobody has seen: the number may be given again. Raises NotFoundError."""
        path = self.record_path(image, number)
        try:
            path.unlink()
        except FileNotFoundError:
            raise NotFoundError(f"image {image} has no version {number}") from None
        sync_directory(path.parent)

    def base(self, image: str) -> Base | None:
        """Return what the next capture need not send; gc keeps it for its grace, whatever is removed."""
        versions = self.late_versions(image)
        with contextlib.suppress(NotFoundError, IntegrityError):
            versions.append(bytes.fromhex(self.version(image).version))
        for version in versions:
            with contextlib.suppress(FileNotFoundError):
                os.utime(self.current_path(version))
        return super().base(image)

    def check(self, *, read_data: bool = False) -> CheckReport:
        """Verify everything published; with `read_data` also every byte of every pack."""
        return check(self, read_data=read_data, public_key=self._trusted_key())

    def verify(self, image: str, number: int, watch: Watch) -> VerifyReport:
        """Verify one version to its last byte; `watch` is told how far it is, and ends it by raising."""
        return verify(self, image, number, public_key=self._trusted_key(), watch=watch)

    def stats(self) -> StoreStats:
        """Return what everything published weighs, in bounded memory."""
        return measure(self)

    def space(self) -> tuple[int, int]:
        """Return what is used of the filesystem, and what may still be written."""
        return self.files.space()

    def freed(self, let_go: Collection[VersionNumber]) -> tuple[dict[str, int], int]:
        """Return the bytes of packs that only these versions need: by image, and what several of the images share."""
        return freed(self, let_go)

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
        # File times come from the kernel's clock, so the grace does too.
        return gc(self, grace_s, time.time(), keep_maps, without=without if dry_run else (), dry_run=dry_run)

    def repack(self, version: bytes) -> SignedMap:
        """Write the chunks of a version into new packs, in tree order; its digest stays."""
        return repack(self, version, self._key())

    def repack_sparse(self, below: float, *, dry_run: bool = False) -> Repacked:
        """Write packs of which less than `below` is used anew, without what nobody uses; digests of versions stay."""
        return repack_sparse(self, self._key(), below=below, dry_run=dry_run)

    def _trusted_key(self) -> bytes | None:
        return self._signer.public_key if self._signer else None

    def _key(self) -> Signer:
        if self._signer is None:
            raise RefusedError("this store is open for reading only: it has no key to sign with")
        return self._signer


class LocalSink:
    """Where a capture in this very process puts its packs; satisfies the agent's CaptureSink."""

    def __init__(self, store: LocalStore) -> None:
        """Take a store that can sign."""
        self._store = store

    def base(self, image: str) -> Base | None:
        """Return the packs of the latest version of `image`."""
        return self._store.base(image)

    def put_pack(self, pack: Pack) -> None:
        """Keep a pack whose digest this process has just computed."""
        self._store.packs.put(pack.digest, pack.stored)

    def put_segment(self, ref: SegmentRef, stored: bytes, delta: SegmentDelta | None = None) -> None:
        """Keep a segment whose digest this process has just computed; nothing is sent, so nothing is saved."""
        self._store.segments.put(ref.digest, stored)

    def publish(self, draft: Draft) -> VersionRecord:
        """Publish what was put."""
        return self._store.publish(draft, is_trusted=True)
