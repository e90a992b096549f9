"""Upkeep of a local store: check everything, remove what nobody needs, write a version into new packs."""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cloner_core.admin.images import CheckReport, Collected, StoreFault, VerifyProgress, VerifyReport
from cloner_core.errors import ClonerError, IntegrityError, NotFoundError
from cloner_core.image.derive import derive_placements
from cloner_core.image.limits import DIGEST_BYTES
from cloner_core.image.pack import ENTRY, Pack, PackWriter, RawPack, check_entries, compress_pack, decode_pack
from cloner_core.image.packmap import MapBuilder, PackMap, PackRef, iter_index
from cloner_core.image.tree import iter_segment
from cloner_core.image.version import (
    PackOffer,
    SignedMap,
    Signer,
    VersionRecord,
    verify_map,
    verify_record,
    verify_version,
)
from cloner_server.store.placements import encode_set
from cloner_server.store.publish import place_map
from cloner_server.store.reader import StoreReader

Watch = Callable[[VerifyProgress], None]
"""Told how far a verification is; what it raises ends that."""

_DECODED_PACKS = 16  # 64 MiB at most; a repack reads chunks nearly in the order of the old packs


def _ignore(_: VerifyProgress) -> None:
    pass


@dataclass(slots=True)
class _Live:
    """Everything the published versions need."""

    roots: set[bytes] = field(default_factory=set)
    segments: set[bytes] = field(default_factory=set)
    maps: set[bytes] = field(default_factory=set)
    indexes: set[bytes] = field(default_factory=set)
    packs: set[bytes] = field(default_factory=set)


@dataclass(slots=True)
class _Packs:
    """The packs that were looked at."""

    sizes: dict[bytes, int] = field(default_factory=dict)
    faults: dict[bytes, str] = field(default_factory=dict)  # "": none


def check(store: StoreReader, *, read_data: bool, public_key: bytes | None) -> CheckReport:
    """Verify everything published; `public_key` is the only signer accepted, when one is given.

    What is removed while it is looked at counts for nothing, whatever a gc has taken of it.
    """
    faults: list[StoreFault] = []
    seen: dict[bytes, list[StoreFault]] = {}
    packs = _Packs()
    versions = 0
    for image, number in store.listed():
        name = f"version {image}/{number}"
        try:
            record = store.version(image, number)
        except NotFoundError:  # removed meanwhile
            continue
        except (IntegrityError, OSError) as error:
            versions += 1
            faults.append(StoreFault(name, _why(error)))
            continue
        version = bytes.fromhex(record.version)
        key = public_key or bytes.fromhex(record.public_key)
        found = list(_check_signature(store, record, key))
        if version not in seen:
            seen[version] = list(_check_version(store, version, key, packs, read_data=read_data))
        found += [StoreFault(f"{name}, {fault.what}", fault.why) for fault in seen[version]]
        if store.record_path(image, number).exists():
            versions += 1
            faults += found
    unused = sum(_size(entry) for name, entry in store.packs.names() if name not in packs.sizes)
    return CheckReport(tuple(faults), versions, len(packs.sizes), sum(packs.sizes.values()), unused)


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except FileNotFoundError:  # a gc runs
        return 0


def verify(store: StoreReader, image: str, number: int, *, public_key: bytes | None, watch: Watch) -> VerifyReport:
    """Verify one version to its last byte, as `check` does; `watch` is told how far it is.

    Raises NotFoundError and IntegrityError only where there is no record to begin with, NotFoundError also when it was
    removed meanwhile and so lacks something.
    """
    record = store.version(image, number)
    version, packs = bytes.fromhex(record.version), _Packs()
    key = public_key or bytes.fromhex(record.public_key)
    faults = list(_check_signature(store, record, key))
    faults += _check_version(store, version, key, packs, read_data=True, watch=watch)
    if faults and not store.record_path(image, number).exists():
        raise NotFoundError(f"version {image}/{number} was removed while it was verified")
    return VerifyReport(
        image, number, record.version, key.hex(), tuple(faults), len(packs.sizes), sum(packs.sizes.values())
    )


def _check_signature(store: StoreReader, record: VersionRecord, key: bytes) -> Iterator[StoreFault]:
    try:
        verify_version(bytes.fromhex(record.version), bytes.fromhex(record.signature), key)
        verify_record(store.record_path(record.image, record.number).read_bytes(), key)
    except (ClonerError, OSError) as error:
        yield StoreFault(f"version {record.image}/{record.number}", _why(error))


def _check_version(
    store: StoreReader,
    version: bytes,
    key: bytes,
    packs: _Packs,
    *,
    read_data: bool,
    watch: Watch = _ignore,
) -> Iterator[StoreFault]:
    try:
        root = store.tree_root(version)
        signed = store.signed_map(version)
        data = store.pack_map(bytes.fromhex(signed.map))
        pack_map = verify_map(data, bytes.fromhex(signed.signature), version, key)
        if signed.public_key != key.hex():
            yield StoreFault("pack map", f"it names the key {signed.public_key}, and {key.hex()} signed it")
        builder = MapBuilder()
        offered = list(iter_index(pack_map, store.indexes.read(pack_map.index_digest)))
        for pack, flat in offered:
            builder.add_pack(pack.digest, pack.stored_size, pack.raw_size, flat)
        placed = derive_placements(root, _watched(store.raw_segments(root), len(root.segments), watch), builder)
        if builder.finish(version)[0] != pack_map:
            yield StoreFault("pack map", "it is not the map its tree and packs give")
        elif store.placement_sets.read(bytes.fromhex(signed.map)) != encode_set(pack_map, placed):
            yield StoreFault("placements", "they are not what the tree and the map give")
    except (ClonerError, OSError) as error:
        yield StoreFault("tree", _why(error))
        return
    done, total = 0, sum(pack.stored_size for pack, _ in offered)
    for pack, flat in offered:
        watch(VerifyProgress("packs", done, total))
        done += pack.stored_size
        if pack.digest not in packs.sizes:
            packs.sizes[pack.digest] = pack.stored_size
            packs.faults[pack.digest] = _fault_of(store, pack, flat, read_data=read_data)
        if why := packs.faults[pack.digest]:
            yield StoreFault(f"pack {pack.digest.hex()}", why)


def _fault_of(store: StoreReader, pack: PackRef, flat: bytes, *, read_data: bool) -> str:
    """Return what is wrong with a pack, "" nothing; what is found by reading it is known from then on."""
    if store.packs.size(pack.digest) != pack.stored_size:
        return f"it is missing or has not {pack.stored_size} bytes"
    if not read_data:
        is_known = not store.packs.has(pack.digest, pack.stored_size)
        return "it was found damaged; --read-data looks again" if is_known else ""
    try:
        raw = decode_pack(store.packs.read(pack.digest), pack.digest, pack.raw_size)
    except (ClonerError, OSError) as error:
        store.packs.say_damaged(pack.digest)
        return _why(error)
    store.packs.say_whole(pack.digest)
    try:
        check_entries(raw, flat)
    except IntegrityError as error:
        return _why(error)
    return ""


def _watched(segments: Iterator[bytes], total: int, watch: Watch) -> Iterator[bytes]:
    for done, raw in enumerate(segments):
        watch(VerifyProgress("tree", done, total))
        yield raw


def _why(error: ClonerError | OSError) -> str:
    """Return what to say of bytes that are wrong, or of a disk that does not give them."""
    return error.message if isinstance(error, ClonerError) else f"it cannot be read: {error}"


@dataclass(frozen=True, slots=True)
class Published:
    """The files that the published versions are made of."""

    versions: int
    files: tuple[Path, ...]  # records, maps, trees, placements: all but packs
    pack_files: tuple[Path, ...]
    packs: int
    packs_bytes: int
    missing: tuple[str, ...]  # what a version needs and the store does not have


def published(store: StoreReader) -> Published:
    """Return what a copy of the store must have; what is missing is named: a damaged store is copied too."""
    live, files, missing, versions = _Live(), list[Path](), list[str](), 0
    for image, number in store.listed():
        versions += 1
        files.append(store.record_path(image, number))
        try:
            _mark(store, bytes.fromhex(store.version(image, number).version), live)
        except (ClonerError, OSError) as error:
            missing.append(f"version {image}/{number}: {_why(error)}")
    files += store.spent_paths()
    files += [path for version in sorted(live.roots) if (path := store.current_path(version)).is_file()]
    pack_files, packs_bytes = list[Path](), 0
    for blobs, names in (
        (store.roots, live.roots),
        (store.segments, live.segments),
        (store.maps, live.maps),
        (store.indexes, live.indexes),
        (store.placement_sets, live.maps),
        (store.packs, live.packs),
    ):
        for name in sorted(names):
            if (size := blobs.size(name)) is None:
                missing.append(f"{blobs.kind} {name.hex()}")
            elif blobs is store.packs:
                pack_files.append(blobs.path_of(name))
                packs_bytes += size
            else:
                files.append(blobs.path_of(name))
    return Published(versions, tuple(files), tuple(pack_files), len(live.packs), packs_bytes, tuple(missing))


def gc(
    store: StoreReader,
    grace_s: float,
    now: float,
    keep_maps: Collection[bytes],
    *,
    without: Collection[tuple[str, int]] = (),
    dry_run: bool = False,
) -> Collected:
    """Remove what no published version needs and nobody touched since `now - grace_s` (seconds since 1970).

    A removed version that a capture may still build on counts as published until then.
    With `dry_run` it only counts what would go; `without` names versions that count as removed.
    Raises ConflictError when others have the store for too long.
    """
    with store.files.locked(exclusive=not dry_run):
        live = _Live()
        for record in store.records():
            if (record.image, record.number) not in without:
                _mark(store, bytes.fromhex(record.version), live)
        _mark_young(store, now - grace_s, live)
        for name in keep_maps:
            _mark_map(store, name, live)
        sizes = []
        for path in _unneeded(store, live):
            try:
                status = path.stat()
            except FileNotFoundError:  # a temporary that got its name meanwhile
                continue
            if status.st_mtime < now - grace_s:
                sizes.append(status.st_size)
                if not dry_run:
                    path.unlink(missing_ok=True)
        return Collected(len(sizes), sum(sizes))


def _unneeded(store: StoreReader, live: _Live) -> Iterator[Path]:
    """Give every file of the store that is not among what is live, however young.

    What names others comes before them: what a gc that is killed leaves must not be counted on.
    """
    yield from store.late_paths()
    for version in _current_versions(store):
        if version not in live.roots:
            yield store.current_path(version)
    for blobs, keep in (
        (store.packs, live.packs),
        (store.segments, live.segments),
        (store.roots, live.roots),
        (store.placement_sets, live.maps),
        (store.maps, live.maps),
        (store.indexes, live.indexes),
    ):
        yield from (Path(entry.path) for name, entry in blobs.names() if name not in keep)
    yield from store.files.temporary.iterdir()
    if store.files.damaged.is_dir():
        named = {name.hex() for name in live.packs}
        yield from (path for path in store.files.damaged.iterdir() if path.name not in named)
    lists = store.parcel_list_path(bytes(DIGEST_BYTES)).parent
    if lists.is_dir():
        kept = {store.parcel_list_path(name) for name in live.maps}
        yield from (path for path in lists.iterdir() if path not in kept)


def _current_versions(store: StoreReader) -> list[bytes]:
    directory = store.current_path(bytes(DIGEST_BYTES)).parent
    return [bytes.fromhex(path.stem) for path in directory.glob("*.json")] if directory.is_dir() else []


def _mark_young(store: StoreReader, since_s: float, live: _Live) -> None:
    """Keep what was published, or handed to a capture as its base, since then: the capture counts on its packs.

    And the maps that were current until then: a deploy that began just before a repack reads by the old one.
    """
    for version in _current_versions(store):
        try:
            if store.current_path(version).stat().st_mtime >= since_s:
                _mark(store, version, live)
        except ClonerError:
            continue  # half removed already: nothing was handed out of it
    for name, entry in store.maps.names():
        with contextlib.suppress(ClonerError):
            if entry.stat().st_mtime >= since_s:
                _mark_map(store, name, live)


def _mark(store: StoreReader, version: bytes, live: _Live) -> None:
    if version in live.roots:
        return
    live.roots.add(version)
    live.segments.update(ref.digest for ref in store.tree_root(version).segments)
    _mark_map(store, bytes.fromhex(store.signed_map(version).map), live)


def _mark_map(store: StoreReader, name: bytes, live: _Live) -> None:
    live.maps.add(name)
    pack_map = store.map_of(name)
    live.indexes.add(pack_map.index_digest)
    live.packs.update(pack.digest for pack in pack_map.packs)


def repack(store: StoreReader, version: bytes, signer: Signer) -> SignedMap:
    """Write the chunks of a version into new packs in tree order and make a map over them current."""
    root = store.tree_root(version)
    source = _ChunkSource(store, store.current_map(version))
    writer = PackWriter()
    done: set[bytes] = set()
    offers: list[PackOffer] = []

    def keep(raw: RawPack | None) -> None:
        if raw is not None:
            pack: Pack = compress_pack(raw)
            store.packs.put(pack.digest, pack.stored)
            offers.append(PackOffer(pack.digest, len(pack.stored), pack.raw_size, pack.entries))

    for ref, segment in zip(root.segments, store.raw_segments(root), strict=True):
        for inode, _ in iter_segment(segment, ref):
            for start in range(0, len(inode.chunks), DIGEST_BYTES):
                chunk = inode.chunks[start : start + DIGEST_BYTES]
                if chunk not in done:
                    done.add(chunk)
                    keep(writer.add(chunk, source.read(chunk)))
    keep(writer.close())
    with store.files.locked():
        return place_map(store, version, root, offers, signer)


class _ChunkSource:
    """The chunks of a map, read through a few decoded packs."""

    def __init__(self, store: StoreReader, pack_map: PackMap) -> None:
        self._store = store
        self._packs = pack_map.packs
        self._decoded: OrderedDict[int, bytes] = OrderedDict()
        self._where: dict[bytes, tuple[int, int, int]] = {}
        index = store.indexes.read(pack_map.index_digest)
        for ordinal, (_, entries) in enumerate(iter_index(pack_map, index)):
            for chunk, offset, length in ENTRY.iter_unpack(entries):
                self._where.setdefault(chunk, (ordinal, offset, length))

    def read(self, chunk: bytes) -> bytes:
        ordinal, offset, length = self._where[chunk]
        raw = self._decoded.get(ordinal)
        if raw is None:
            pack = self._packs[ordinal]
            raw = decode_pack(self._store.packs.read(pack.digest), pack.digest, pack.raw_size)
            if len(self._decoded) >= _DECODED_PACKS:
                self._decoded.popitem(last=False)
        self._decoded[ordinal] = raw
        self._decoded.move_to_end(ordinal)
        return raw[offset : offset + length]
