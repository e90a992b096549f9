"""Repacking: packs of which versions use little are written anew without what nobody uses.

A version and its digest never change by it: only the map, which says where its chunks are, is replaced by another one:
once, when all new packs are there, for a map that was replaced stays for the grace of a gc. The old packs go with a gc,
when their grace is over and no deploy was told the old map.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from cloner_core.admin.store import Repacked
from cloner_core.errors import ClonerError, NotFoundError, RefusedError
from cloner_core.image.pack import ENTRY, PackWriter, RawPack, compress_pack, decode_pack
from cloner_core.image.packmap import iter_index
from cloner_core.image.version import PackOffer, Signer
from cloner_server.store.publish import place_map
from cloner_server.store.reader import StoreReader

AT_ONCE = 256  # packs whose chunks are held in memory as lists: 1 GiB of files, of a million chunks at most

Watch = Callable[[int, int], None]
"""Told how many sparse packs are done, and how many there are."""


@dataclass(frozen=True, slots=True)
class Sparse:
    """A pack of which little is used."""

    digest: bytes
    stored_size: int
    raw_size: int
    live: tuple[tuple[bytes, int, int], ...]  # chunk, offset, length; by offset

    @property
    def live_bytes(self) -> int:
        """Return how much of it is used, not compressed."""
        return sum(length for _, _, length in self.live)


def repack_sparse(
    store: StoreReader,
    signer: Signer,
    *,
    below: float,
    dry_run: bool = False,
    watch: Watch = lambda done, total: None,
    at_once: int = AT_ONCE,
) -> Repacked:
    """Write the used chunks of all packs of which less than `below` (0 to 1) is used into new packs.

    May be ended anywhere: each version has its old map or its new one, both whole, and new packs that no map names go
    with a gc. Raises RefusedError for a share that is none, StoreFullError when there is no room for the new packs,
    IntegrityError and NotFoundError for a pack that cannot be read; what was written before gets its maps all the same.
    """
    if not 0 < below <= 1:
        raise RefusedError(f"{below} is not a share of a pack above 0 and up to 1")
    versions = _versions(store)
    candidates = _candidates(store, versions, below)
    old_bytes, live_bytes = 0, 0
    names, offers = set[bytes](), list[PackOffer]()
    try:
        for start in range(0, len(candidates), at_once):
            watch(start, len(candidates))
            sparse = _sparse(store, versions, candidates[start : start + at_once], below)
            if not dry_run:
                offers += _write_anew(store, sparse)
                _keep_young(store, offers)
            names.update(pack.digest for pack in sparse)
            old_bytes += sum(pack.stored_size for pack in sparse)
            live_bytes += sum(pack.live_bytes for pack in sparse)
    except (ClonerError, OSError):
        if not dry_run:  # what was written serves all the same
            _move_all(store, signer, versions, names, offers)
        raise
    users = _users(store, versions, names) if dry_run else _move_all(store, signer, versions, names, offers)
    return Repacked(
        packs=len(names),
        stored_bytes=old_bytes,
        live_bytes=live_bytes,
        new_packs=len(offers),
        new_stored_bytes=sum(offer.stored_size for offer in offers),
        versions=len(users),
        dry_run=dry_run,
        map_bytes=sum(_map_bytes(store, version) for version in users),
    )


def _versions(store: StoreReader) -> list[bytes]:
    """Return the trees that are published, the newest of each image first: the new packs are in their order."""
    listed = sorted(store.listed(), key=lambda name: (-name[1], name[0]))
    return list(dict.fromkeys(bytes.fromhex(store.version(*name).version) for name in listed))


def _offers(store: StoreReader, version: bytes) -> Iterator[PackOffer]:
    with contextlib.suppress(NotFoundError):  # removed and collected meanwhile
        yield from store.offers(version)


def _candidates(store: StoreReader, versions: Sequence[bytes], below: float) -> list[bytes]:
    """Return the packs of which no single version uses as much as `below`, in the order of the versions."""
    most: dict[bytes, float] = {}
    for version in versions:
        for offer in _offers(store, version):
            used = sum(length for _, _, length in ENTRY.iter_unpack(offer.entries))
            most[offer.digest] = max(most.get(offer.digest, 0.0), used / offer.raw_size)
    return [digest for digest, share in most.items() if share < below]


def _sparse(store: StoreReader, versions: Sequence[bytes], candidates: Sequence[bytes], below: float) -> list[Sparse]:
    """Return those of the candidates of which all versions together use less than `below`."""
    live: dict[bytes, dict[int, tuple[bytes, int]]] = {digest: {} for digest in candidates}
    sizes: dict[bytes, tuple[int, int]] = {}
    for version in versions:
        for offer in _offers(store, version):
            if (chunks := live.get(offer.digest)) is not None:
                sizes[offer.digest] = offer.stored_size, offer.raw_size
                chunks.update((at, (name, length)) for name, at, length in ENTRY.iter_unpack(offer.entries))
    found = [
        Sparse(digest, *sizes[digest], tuple((name, at, length) for at, (name, length) in sorted(live[digest].items())))
        for digest in candidates
        if digest in sizes  # its last version may have been removed meanwhile
    ]
    return [pack for pack in found if pack.live_bytes < below * pack.raw_size]


def _write_anew(store: StoreReader, sparse: Sequence[Sparse]) -> Iterator[PackOffer]:
    """Write the used chunks of the packs into new ones, each content once; give what they hold."""
    writer, known = PackWriter(), set[bytes]()

    def kept(raw: RawPack | None) -> Iterator[PackOffer]:
        if raw is not None:
            pack = compress_pack(raw)
            store.packs.put(pack.digest, pack.stored)
            yield PackOffer(pack.digest, len(pack.stored), pack.raw_size, pack.entries)

    for pack in sparse:
        raw = decode_pack(store.packs.read(pack.digest), pack.digest, pack.raw_size)
        for name, at, length in pack.live:
            if name not in known:
                known.add(name)
                yield from kept(writer.add(name, raw[at : at + length]))
    yield from kept(writer.close())


def _keep_young(store: StoreReader, offers: Sequence[PackOffer]) -> None:
    """Have gc count its grace from now for the packs that no map names yet."""
    with store.files.locked():
        for offer in offers:
            store.packs.touch(offer.digest, offer.stored_size)


def _users(store: StoreReader, versions: Sequence[bytes], sparse: set[bytes]) -> list[bytes]:
    """Return the versions that need any of the sparse packs."""
    found = []
    for version in versions:
        with contextlib.suppress(NotFoundError):
            if any(pack.digest in sparse for pack in store.current_map(version).packs):
                found.append(version)
    return found


def _map_bytes(store: StoreReader, version: bytes) -> int:
    """Return what the map of a version weighs, with its index and placements."""
    with contextlib.suppress(NotFoundError):
        name, index = bytes.fromhex(store.signed_map(version).map), store.current_map(version).index_digest
        sizes = (store.maps.size(name), store.placement_sets.size(name), store.indexes.size(index))
        return sum(size or 0 for size in sizes)
    return 0


def _move_all(
    store: StoreReader, signer: Signer, versions: Sequence[bytes], sparse: set[bytes], offers: Sequence[PackOffer]
) -> list[bytes]:
    """Move every version that needs any of the sparse packs; return them."""
    users = _users(store, versions, sparse)
    for version in users:
        _move(store, signer, version, sparse, offers)
    return users


def _move(store: StoreReader, signer: Signer, version: bytes, sparse: set[bytes], offers: Sequence[PackOffer]) -> None:
    """Make a map current by which a version has nothing in the sparse packs any more."""
    with store.files.locked():  # gc is away until the map is durable
        try:
            current = store.current_map(version)
            index = store.indexes.read(current.index_digest)
            root = store.tree_root(version)
        except NotFoundError:
            return  # removed and collected meanwhile
        stay = [
            PackOffer(pack.digest, pack.stored_size, pack.raw_size, entries)
            for pack, entries in iter_index(current, index)
            if pack.digest not in sparse
        ]
        place_map(store, version, root, [*stay, *offers], signer)
