"""Publishing: from a draft to a version that appears at once, checked from its root to its last chunk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import msgspec

from cloner_core.errors import ConflictError, IntegrityError, NotFoundError
from cloner_core.image.derive import derive_placements
from cloner_core.image.digest import version_digest
from cloner_core.image.pack import check_entries, decode_pack
from cloner_core.image.packmap import MapBuilder, encode_map, map_digest
from cloner_core.image.tree import TreeRoot, decode_root
from cloner_core.image.version import (
    Draft,
    PackOffer,
    SignedMap,
    Signer,
    VersionRecord,
    check_image_name,
    map_statement,
    seal_record,
    version_statement,
)
from cloner_server.durable import sync_directory
from cloner_server.store.placements import encode_set
from cloner_server.store.reader import StoreReader

Clock = Callable[[], datetime]


def publish(
    store: StoreReader, draft: Draft, signer: Signer, clock: Clock, *, is_trusted: bool = False
) -> VersionRecord:
    """Publish `draft` as the next version of its image; raises IntegrityError, having shown nothing to any reader.

    Raises ConflictError when another capture was published since this one began: all of it is kept for the next try.
    """
    check_image_name(draft.image)
    version = version_digest(draft.root)
    root = decode_root(draft.root, version)
    with store.files.locked():  # keeps gc away from what is checked here until it is published
        if not _has_complete_map(store, version):
            offers = _offers(store, draft, is_trusted)
            store.roots.put(version, draft.root)
            place_map(store, version, root, offers, signer)
        store.roots.sync({version})
        store.segments.sync({ref.digest for ref in root.segments})
        record = VersionRecord(
            image=draft.image,
            number=1,
            version=version.hex(),
            signature=signer.sign(version_statement(version)).hex(),
            public_key=signer.public_key.hex(),
            inodes=root.inodes,
            data_bytes=root.data_bytes,
            published_at=clock().isoformat(timespec="seconds"),
            message=draft.message,
            author=draft.author,
            source=draft.source,
            inexact=draft.inexact,
            findings=draft.findings,
            origin_key=draft.origin_key,
            options=draft.options,
            options_revision=draft.options_revision,
        )
        with store.files.numbering():
            return _append(store, record, signer, draft.after)


def place_map(
    store: StoreReader, version: bytes, root: TreeRoot, offers: Iterable[PackOffer], signer: Signer
) -> SignedMap:
    """Make the map of a version over the packs offered, with its placements, durable and current.

    The map it had is touched: a deploy may have been told it just now, and gc keeps it for its grace.
    """
    builder = MapBuilder()
    for offer in offers:
        builder.add_pack(offer.digest, offer.stored_size, offer.raw_size, offer.entries)
    entries = derive_placements(root, _segments(store, root), builder)
    pack_map, index = builder.finish(version)
    _require_packs(store, [(pack.digest, pack.stored_size) for pack in pack_map.packs])
    data = encode_map(pack_map)
    name = map_digest(data)
    store.indexes.put(pack_map.index_digest, index)
    store.placement_sets.put(name, encode_set(pack_map, entries))
    store.maps.put(name, data)
    store.packs.sync({pack.digest for pack in pack_map.packs})
    store.indexes.sync({pack_map.index_digest})
    store.placement_sets.sync({name})
    store.maps.sync({name})
    signed = SignedMap(
        version=version.hex(),
        map=name.hex(),
        signature=signer.sign(map_statement(version, name)).hex(),
        public_key=signer.public_key.hex(),
    )
    with contextlib.suppress(NotFoundError, IntegrityError, FileNotFoundError):
        os.utime(store.maps.path_of(bytes.fromhex(store.signed_map(version).map)))
    store.files.replace(store.current_path(version), msgspec.json.encode(signed))
    return signed


def _segments(store: StoreReader, root: TreeRoot) -> Iterable[bytes]:
    try:
        yield from store.raw_segments(root)
    except NotFoundError as error:
        raise IntegrityError(f"the tree is not complete: {error.message}", hint="capture the image again") from error


def _has_complete_map(store: StoreReader, version: bytes) -> bool:
    """Tell whether the very same tree is published already, with everything it needs: all but packs is read."""
    try:
        if store.missing_packs(version):
            return False
        return store.has_whole_placements(bytes.fromhex(store.signed_map(version).map))
    except (NotFoundError, IntegrityError):
        return False


def _offers(store: StoreReader, draft: Draft, is_trusted: bool) -> list[PackOffer]:
    """Return the packs a draft may use; raises IntegrityError when one is absent or holds something else."""
    try:
        known = [version for version in (draft.base, *draft.also) if version]
        offers = [offer for version in known for offer in store.whole_offers(version)]
    except NotFoundError as error:
        raise IntegrityError(f"the base of the capture is gone: {error.message}", hint="capture again") from error
    _require_packs(store, [(offer.digest, offer.stored_size) for offer in draft.packs])
    if not is_trusted:
        # Decoding and hashing release the GIL. A published map is believed by later captures: it must be true.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(lambda offer: verify_offer(store, offer), draft.packs):
                pass
    return offers + list(draft.packs)


def verify_offer(store: StoreReader, offer: PackOffer) -> None:
    """Raise IntegrityError unless the pack in the store holds what `offer` says."""
    check_entries(decode_pack(store.packs.read(offer.digest), offer.digest, offer.raw_size), offer.entries)


def _require_packs(store: StoreReader, wanted: list[tuple[bytes, int]]) -> None:
    missing = [name.hex() for name, size in wanted if not store.packs.has(name, size)]
    if missing:
        listed = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        raise IntegrityError(
            f"{len(missing)} of {len(wanted)} packs are not in the store, or damaged: {listed}",
            hint="the same command once more sends them",
        )


def _append(store: StoreReader, record: VersionRecord, signer: Signer, after: int | None) -> VersionRecord:
    """Give the record the next free number; link(2) decides between two publishers."""
    image = record.image
    while True:
        last = store.last_number(image)
        if after not in (None, last):
            # What came late is whole in the store by now: the next capture need not send it again.
            store.files.create(store.late_path(image, bytes.fromhex(record.version)), b"")
            raise ConflictError(
                f"{_named(store, image, last)} was published while this capture ran: it began after {image}:{after}",
                hint=f"the same command once more makes {image}:{last + 1}; what it has sent is kept for that",
            )
        data = seal_record(msgspec.structs.replace(record, number=last + 1), signer)
        path = store.record_path(image, last + 1)
        if store.files.create(path, data):
            sync_directory(path.parent.parent)
            store.late_path(image, bytes.fromhex(record.version)).unlink(missing_ok=True)
            return msgspec.json.decode(data, type=VersionRecord)


def _named(store: StoreReader, image: str, number: int) -> str:
    """Return how a person knows a version that was published first."""
    try:
        first = store.version(image, number)
    except (NotFoundError, IntegrityError):  # removed again
        return f"{image}:{number}"
    by = ", ".join(f"{word} {value}" for word, value in (("by", first.author), ("from", first.source)) if value)
    return f"{image}:{number} ({by})" if by else f"{image}:{number}"
