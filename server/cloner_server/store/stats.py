"""What the images of a store weigh: logical, unique, compressed, and what each alone holds."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from functools import partial

from cloner_core.admin.store import ImageShare, StoreStats, VersionShare
from cloner_core.errors import ClonerError
from cloner_core.image.pack import ENTRY
from cloner_core.image.packmap import iter_index
from cloner_core.image.version import VersionRecord
from cloner_server.store.reader import StoreReader
from cloner_server.store.tally import AT_ONCE, Source, tally


def measure(store: StoreReader, *, at_once: int = AT_ONCE) -> StoreStats:
    """Return the weight of everything published. Memory is bounded; a version that cannot be read is named."""
    with store.files.locked():  # keeps gc away
        records, unread = list[VersionRecord](), list[str]()
        for image, number in store.listed():
            try:
                record = store.version(image, number)
                store.indexes.existing_path(store.current_map(bytes.fromhex(record.version)).index_digest)
                records.append(record)
            except ClonerError as fault:
                unread.append(f"{image}:{number}: {fault.message}")
        images = list(dict.fromkeys(record.image for record in records))
        places = {image: place for place, image in enumerate(images)}
        versions = [(places[record.image], bytes.fromhex(record.version)) for record in records]
        chunks = tally([Source(place, partial(_chunks, store, v)) for place, v in versions], at_once)
        packs = tally([Source(place, partial(pack_items, store, v)) for place, v in versions], at_once)
        shares = tuple(
            VersionShare(
                image=record.image,
                number=record.number,
                logical_bytes=record.data_bytes,
                unique_bytes=chunks.member[member],
                stored_bytes=packs.member[member],
                only_bytes=packs.member_only[member],
            )
            for member, record in enumerate(records)
        )
        kept = sum(entry.stat().st_size for _, entry in store.packs.names())
        metadata = (store.segments, store.roots, store.maps, store.indexes, store.placement_sets)
        metadata_bytes = sum(entry.stat().st_size for blobs in metadata for _, entry in blobs.names())
    status = os.statvfs(store.files.root)
    return StoreStats(
        images=tuple(
            ImageShare(
                image=image,
                versions=sum(share.image == image for share in shares),
                logical_bytes=sum(share.logical_bytes for share in shares if share.image == image),
                unique_bytes=chunks.group[place],
                stored_bytes=packs.group[place],
                only_bytes=packs.group_only[place],
            )
            for image, place in places.items()
        ),
        versions=shares,
        logical_bytes=sum(share.logical_bytes for share in shares),
        unique_bytes=chunks.total,
        stored_bytes=packs.total,
        metadata_bytes=metadata_bytes,
        unused_bytes=max(0, kept - packs.total),
        free_bytes=status.f_bavail * status.f_frsize,
        unread=tuple(unread),
    )


def freed(store: StoreReader, let_go: Collection[tuple[str, int]]) -> tuple[dict[str, int], int]:
    """Return the stored bytes of packs that only `let_go` (image and number) need: by image, and what several share."""
    if not let_go:
        return {}, 0
    images = sorted({image for image, _ in let_go})
    groups = {image: place for place, image in enumerate(images, start=1)}  # 0: what is kept, whatever it is of
    with store.files.locked():
        records = list(store.records())
        of_group = [groups[r.image] if (r.image, r.number) in let_go else 0 for r in records]
        sources = [
            Source(group, partial(pack_items, store, bytes.fromhex(record.version)))
            for group, record in sorted(zip(of_group, records, strict=True), key=lambda pair: pair[0])
        ]
        counted = tally(sources)
    by_image = {image: counted.group_only[place] for image, place in groups.items() if place < len(counted.group_only)}
    kept = counted.group[0] if counted.group else 0
    return by_image, counted.total - kept - sum(by_image.values())


def pack_items(store: StoreReader, version: bytes) -> Iterator[tuple[bytes, int]]:
    """Give the packs of a version and their stored bytes."""
    for pack in store.current_map(version).packs:
        yield pack.digest, pack.stored_size


def _chunks(store: StoreReader, version: bytes) -> Iterator[tuple[bytes, int]]:
    pack_map = store.current_map(version)
    for _, entries in iter_index(pack_map, store.indexes.read(pack_map.index_digest)):
        for digest, _, length in ENTRY.iter_unpack(entries):
            yield digest, length
