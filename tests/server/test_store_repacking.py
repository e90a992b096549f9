"""Packs of which little is used are written anew: versions stay what they are, and the rest is freed."""

from __future__ import annotations

import random

import msgspec
import pytest

from cloner_core.errors import RefusedError
from cloner_core.image.pack import ENTRY
from cloner_server.store.blobs import Blobs, Files
from cloner_server.store.local import LocalStore
from cloner_server.store.protocol import StoreFullError
from cloner_server.store.repacking import repack_sparse
from store_images import Image, Key, files_from, make_image


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    return LocalStore(tmp_path_factory.mktemp("repack") / "store", Key())


def contents(seed: int, files: int) -> dict[bytes, bytes]:
    chance = random.Random(seed)
    return {b"%02d-%04d" % (seed, number): chance.randbytes(2000) for number in range(files)}


def publish(store: LocalStore, files: dict[bytes, bytes], image: str = "golden") -> bytes:
    """Publish as an update does: chunks that the last version has are not packed again."""
    base = store.base(image)
    known = {name for offer in (base.packs if base else ()) for name, _, _ in ENTRY.iter_unpack(offer.entries)}
    made = make_image(files, image, pack_every=10)
    new = [offer for offer in made.draft.packs if any(n not in known for n, _, _ in ENTRY.iter_unpack(offer.entries))]
    packs = [pack for pack in made.packs if pack.digest in {offer.digest for offer in new}]
    draft = msgspec.structs.replace(made.draft, packs=tuple(new), base=base.version if base else b"")
    Image(draft, made.segments, packs).put(store)
    return bytes.fromhex(store.publish(draft).version)


def worn(store: LocalStore) -> tuple[bytes, dict[bytes, bytes]]:
    """Return the version that is left of two: it needs a tenth of the packs of the first."""
    old = contents(1, 100)
    publish(store, old)
    kept = {name: old[name] for name in sorted(old)[::10]} | contents(2, 10)
    version = publish(store, kept)
    store.remove_version("golden", 1)
    return version, kept


def test_what_is_left_of_sparse_packs_is_written_anew_and_the_rest_freed(store: LocalStore) -> None:
    version, kept = worn(store)
    record, before = store.version("golden"), store.stats().stored_bytes
    promised = store.repack_sparse(0.5, dry_run=True)
    repacked = store.repack_sparse(0.5)
    assert (promised.packs, promised.stored_bytes, promised.versions) == (10, repacked.stored_bytes, 1)
    assert (promised.live_bytes, repacked.new_packs, promised.new_packs) == (20_000, 1, 0)
    assert store.version("golden") == record
    assert files_from(store, version) == kept
    assert store.check(read_data=True).faults == ()
    store.gc(-60)
    assert store.stats().stored_bytes < before / 4
    assert store.check(read_data=True).unused_bytes == 0
    assert files_from(store, version) == kept
    assert store.repack_sparse(0.5).packs == 0, "it is done"


def test_content_that_several_versions_use_is_written_once_and_none_is_lost(store: LocalStore) -> None:
    old = contents(1, 100)
    publish(store, old, "a")
    thinned = [{name: old[name] for name in sorted(old)[start::10]} for start in (0, 0, 1)]
    for image, files in zip("abc", thinned, strict=True):
        if image != "a":
            made = make_image(old, image, pack_every=10)
            made.put(store)
            store.publish(made.draft)
        publish(store, files, image)
        store.remove_version(image, 1)
    repacked = store.repack_sparse(0.5)
    assert (repacked.packs, repacked.live_bytes, repacked.versions) == (10, 40_000, 2), "two images have one tree"
    store.gc(-60)
    for image, files in zip("abc", thinned, strict=True):
        assert files_from(store, bytes.fromhex(store.version(image).version)) == files
    assert store.check(read_data=True).unused_bytes == 0
    assert len(list(store.packs.names())) == 1


def test_a_pack_that_all_versions_together_use_well_is_left_alone(store: LocalStore) -> None:
    old = contents(1, 100)
    for image, start in (("a", 0), ("b", 50)):
        made = make_image(old, image, pack_every=100)
        made.put(store)
        store.publish(made.draft)
        publish(store, dict(sorted(old.items())[start : start + 45]), image)
        store.remove_version(image, 1)
    assert store.repack_sparse(0.5).packs == 0, "each uses 45 %, together 90"
    assert store.repack_sparse(1.0).packs == 1


def maps(store: LocalStore) -> int:
    return sum(1 for blobs in (store.maps, store.indexes, store.placement_sets) for _ in blobs.names())


def test_however_many_packs_are_sparse_each_version_gets_one_more_map(store: LocalStore) -> None:
    version, kept = worn(store)
    before = maps(store)
    promised = repack_sparse(store, Key(), below=0.5, at_once=2, dry_run=True)
    assert (maps(store), promised.map_bytes > 0) == (before, True)
    repacked = repack_sparse(store, Key(), below=0.5, at_once=2)
    assert (repacked.packs, repacked.new_packs, maps(store)) == (10, 5, before + 3)
    name = bytes.fromhex(store.signed_map(version).map)
    parts = (store.maps.size(name), store.placement_sets.size(name))
    assert repacked.map_bytes == sum(map(int, filter(None, parts))) + len(
        store.indexes.read(store.current_map(version).index_digest)
    )
    assert files_from(store, version) == kept
    store.gc(-60)
    assert (store.check(read_data=True).faults, maps(store)) == ((), 3)


class Ends(Blobs):
    """Packs of which only so many are written."""

    def __init__(self, packs: Blobs, files: Files, most: int) -> None:
        super().__init__(files, packs.kind)
        self.most = most

    def put(self, name: bytes, data: bytes | bytearray) -> bool:
        self.most -= 1
        if self.most < 0:
            raise StoreFullError("no room")
        return super().put(name, data)


@pytest.mark.parametrize("most", range(5))
def test_a_repack_that_finds_no_more_room_loses_nothing_and_the_next_goes_on(store: LocalStore, most: int) -> None:
    version, kept = worn(store)
    whole, store.packs = store.packs, Ends(store.packs, store.files, most)
    with pytest.raises(StoreFullError):
        repack_sparse(store, Key(), below=0.5, at_once=2)
    store.packs = whole
    assert files_from(store, version) == kept
    assert repack_sparse(store, Key(), below=0.5, at_once=2).packs == 10 - 2 * most
    store.gc(-60)
    assert files_from(store, version) == kept
    report = store.check(read_data=True)
    assert (report.faults, report.packs, report.unused_bytes) == ((), 6, 0)


def test_a_deploy_that_was_told_the_old_map_reads_on(store: LocalStore) -> None:
    version, _ = worn(store)
    told = bytes.fromhex(store.signed_map(version).map)
    packs = [pack.digest for pack in store.map_of(told).packs]
    store.repack_sparse(0.5)
    store.gc(-60, keep_maps=[told])
    assert all(store.packs.size(pack) for pack in packs)
    assert store.placement(told, 0)
    store.gc(-60)
    assert not all(store.packs.size(pack) for pack in packs)


def test_the_next_capture_builds_on_the_new_packs(store: LocalStore) -> None:
    _, kept = worn(store)
    store.repack_sparse(0.5)
    store.gc(-60)
    more = kept | contents(3, 3)
    version = publish(store, more)
    assert files_from(store, version) == more
    assert store.check(read_data=True).faults == ()


@pytest.mark.parametrize("below", [0.0, -1.0, 1.01, float("nan")])
def test_what_is_no_share_is_refused(store: LocalStore, below: float) -> None:
    with pytest.raises(RefusedError):
        store.repack_sparse(below)
