"""Check finds every damage, gc keeps what is needed, repack keeps the version."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from cloner_core.admin.images import VerifyProgress
from cloner_core.errors import NotFoundError
from cloner_core.image.digest import digest
from cloner_server.store.blobs import Blobs, Files
from cloner_server.store.local import LocalStore
from clones import scatter
from store_images import Image, Key, age, files_from, flip, make_image, some_contents


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store", Key())


@pytest.fixture
def image(store: LocalStore) -> Image:
    image = make_image(some_contents())
    image.put(store)
    store.publish(image.draft)
    return image


PARTS: dict[str, Callable[[LocalStore, Image], Path]] = {
    "pack": lambda store, image: store.pack_path(image.packs[1].digest),
    "segment": lambda store, image: store.segment_path(image.segments[0].ref.digest),
    "root": lambda store, image: store.roots.path_of(image.version),
    "map": lambda store, image: store.maps.path_of(bytes.fromhex(store.signed_map(image.version).map)),
    "index": lambda store, image: store.indexes.path_of(store.current_map(image.version).index_digest),
    "placements": lambda store, image: store.placement_sets.path_of(bytes.fromhex(store.signed_map(image.version).map)),
    "current": lambda store, image: store.current_path(image.version),
}
RECORD = {"record": lambda store, image: store.record_path("golden", 1)}


@pytest.mark.parametrize("part", [*PARTS, *RECORD])
@pytest.mark.parametrize("where", [0, 1, 2])
def test_a_flipped_byte_anywhere_is_found(store: LocalStore, image: Image, part: str, where: int) -> None:
    path = (PARTS | RECORD)[part](store, image)
    flip(path, (path.stat().st_size - 1) * where // 2)
    assert store.check(read_data=True).faults != ()


def test_each_byte_of_a_record_is_signed(store: LocalStore, image: Image) -> None:
    path = store.record_path("golden", 1)
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        flip(path, at)
        assert store.check().faults, f"byte {at} of {whole!r}"
        path.write_bytes(whole)
    assert store.check().faults == ()


def test_a_record_of_an_older_server_has_no_signature_and_no_fault(store: LocalStore, image: Image) -> None:
    path = store.record_path("golden", 1)
    told = json.loads(path.read_bytes())
    assert list(told)[-1] == "record_signature", "it is over all before it"
    del told["record_signature"]
    path.write_text(json.dumps(told))
    assert store.check().faults == ()
    path.write_text(json.dumps({**told, "record_signatura": "0" * 128}))
    assert "record_signatura" in store.check().faults[0].why


def test_a_record_that_cannot_be_read_is_a_fault_and_the_others_are_checked(store: LocalStore, image: Image) -> None:
    other = make_image(some_contents(1), "other")
    other.put(store)
    store.publish(other.draft)
    store.record_path("golden", 1).write_bytes(b"{")
    flip(store.pack_path(other.packs[0].digest), 0)
    assert {fault.what.split(",")[0] for fault in store.check(read_data=True).faults} == {
        "version golden/1",
        "version other/1",
    }


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_found(store: LocalStore, image: Image, part: str) -> None:
    PARTS[part](store, image).unlink()
    assert store.check().faults != ()


@pytest.mark.parametrize("part", PARTS)
def test_one_version_is_verified_as_all_are(store: LocalStore, image: Image, part: str) -> None:
    other = make_image(some_contents(1), "other")
    other.put(store)
    store.publish(other.draft)
    told: list[VerifyProgress] = []
    whole = store.verify("golden", 1, told.append)
    assert (whole.faults, whole.packs, whole.digest) == ((), len(image.packs), image.version.hex())
    assert whole.stored_bytes == sum(len(pack.stored) for pack in image.packs)
    assert [each.part for each in told] == ["tree", *["packs"] * len(image.packs)]
    assert all(0 <= each.done < each.total for each in told)
    path = PARTS[part](store, image)
    flip(path, path.stat().st_size // 2)
    damaged = store.verify("golden", 1, told.append)
    assert damaged.faults
    assert store.verify("other", 1, told.append).faults == ()
    name = f"version golden/1, {damaged.faults[0].what}"
    assert name in [fault.what for fault in store.check(read_data=True).faults]


class FailingDisk(Blobs):
    """Packs on a disk that fails to read one of them."""

    def __init__(self, packs: Blobs, files: Files, bad: bytes) -> None:
        super().__init__(files, packs.kind)
        self.bad = bad

    def read(self, name: bytes) -> bytes:
        if name == self.bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(name)


def test_a_pack_that_the_disk_does_not_give_is_a_fault_and_the_rest_is_read(store: LocalStore, image: Image) -> None:
    store.packs = FailingDisk(store.packs, store.files, image.packs[0].digest)
    flip(store.pack_path(image.packs[1].digest), 0)
    faults = {fault.what: fault.why for fault in store.verify("golden", 1, lambda _: None).faults}
    assert set(faults) == {f"pack {pack.digest.hex()}" for pack in image.packs[:2]}
    assert "cannot be read: [Errno 5]" in faults[f"pack {image.packs[0].digest.hex()}"]


def test_whoever_watches_may_end_a_verification(store: LocalStore, image: Image) -> None:
    class EnoughError(Exception):
        """Seen enough."""

    def watch(progress: VerifyProgress) -> None:
        if progress.part == "packs":
            raise EnoughError

    with pytest.raises(EnoughError):
        store.verify("golden", 1, watch)


def test_a_signature_of_another_key_is_found(store: LocalStore, image: Image) -> None:
    assert len(LocalStore(store.files.root, Key(1)).check().faults) == 2  # the version's and the map's
    record = store.version("golden")
    wrong = msgspec.structs.replace(record, signature=Key(1).sign(b"").hex())
    store.record_path("golden", 1).write_bytes(msgspec.json.encode(wrong))
    assert [fault.what for fault in store.check().faults] == ["version golden/1"]


def test_missing_packs_are_known_before_a_deploy_begins(store: LocalStore, image: Image) -> None:
    assert store.missing_packs(image.version) == []
    store.pack_path(image.packs[0].digest).unlink()
    path = store.pack_path(image.packs[1].digest)
    path.write_bytes(path.read_bytes()[:-1])
    assert set(store.missing_packs(image.version)) == {image.packs[0].digest, image.packs[1].digest}


def test_gc_removes_only_what_no_version_needs_and_nobody_touched(store: LocalStore, image: Image) -> None:
    other = make_image(some_contents(1), "other")
    other.put(store)
    store.publish(other.draft)
    age(store)
    assert store.gc(3600).files == 0
    store.remove_version("other", 1)
    fresh = make_image(some_contents(2), "fresh")
    fresh.put(store)  # being written: younger than the grace
    (store.files.temporary / "left-by-a-crash").write_bytes(b"x")
    os.utime(store.files.temporary / "left-by-a-crash", (0, 0))
    before = sorted(path for path in store.files.root.rglob("*") if path.is_file())
    promised = store.gc(3600, dry_run=True)
    assert sorted(path for path in store.files.root.rglob("*") if path.is_file()) == before
    collected = store.gc(3600)
    assert promised == collected
    packs = {pack.digest for pack in other.packs} - {pack.digest for pack in image.packs}
    # … and a segment, root, map, index, set of placements, which map is current, and the crash's temporary.
    assert collected.files == len(packs) + 7
    assert files_from(store, image.version) == some_contents()
    store.publish(fresh.draft)
    assert files_from(store, fresh.version) == some_contents(2)
    assert store.check(read_data=True).faults == ()
    assert os.listdir(store.files.temporary) == []


def test_a_pack_put_again_is_young_again(store: LocalStore, image: Image) -> None:
    stray = b"stray"
    store.put_pack(digest(stray), stray)
    age(store)
    store.put_pack(digest(stray), stray)
    assert store.gc(3600).files == 0
    age(store)
    assert store.gc(3600).files == 1


def test_gc_keeps_the_map_of_a_deploy_that_runs(store: LocalStore, image: Image) -> None:
    name = bytes.fromhex(store.signed_map(image.version).map)
    store.remove_version("golden", 1)
    age(store)
    store.gc(3600, keep_maps=[name])
    assert store.placement(name, 0)
    assert store.pack_path(image.packs[0].digest)
    assert store.gc(3600).files >= len(image.packs)


def test_repacking_keeps_the_version_and_its_files(store: LocalStore) -> None:
    contents = {b"%04d" % number: os.urandom(2000) for number in range(30)}
    image = make_image(contents, pack_every=2)
    image.put(store)
    record = store.publish(image.draft)
    before = store.signed_map(image.version)
    after = store.repack(image.version)
    assert after.map != before.map
    assert store.version("golden") == record
    assert len(store.current_map(image.version).packs) == 1
    assert files_from(store, image.version) == contents
    assert store.check(read_data=True).faults == ()
    age(store)
    store.gc(3600)
    assert files_from(store, image.version) == contents
    assert store.check(read_data=True).unused_bytes == 0


def test_a_map_that_was_replaced_lives_for_the_grace(store: LocalStore, image: Image) -> None:
    age(store)
    told = bytes.fromhex(store.signed_map(image.version).map)
    packs = {pack.digest for pack in store.map_of(told).packs}
    scatter(store, image.version, 1)
    store.gc(3600)  # a deploy was told the old one a moment ago
    assert all(store.packs.size(pack) for pack in packs)
    assert store.placement(told, 0)
    age(store)
    assert store.gc(3600).files >= len(packs)


class Beside(Blobs):
    """Packs beside which something happens as the first of them is looked at, or when all are listed."""

    def __init__(self, packs: Blobs, files: Files, meanwhile: Callable[[], object], *, is_at_the_end: bool) -> None:
        super().__init__(files, packs.kind)
        self.meanwhile = meanwhile
        self.is_at_the_end = is_at_the_end

    def size(self, name: bytes) -> int | None:
        if not self.is_at_the_end:
            self.meanwhile()
        return super().size(name)

    def names(self) -> Iterator[tuple[bytes, os.DirEntry[str]]]:
        found = list(super().names())
        if self.is_at_the_end:
            self.meanwhile()
        return iter(found)


@pytest.mark.parametrize("is_at_the_end", [False, True])
def test_what_is_removed_and_collected_beside_a_check_is_no_fault(store: LocalStore, *, is_at_the_end: bool) -> None:
    for name in ("golden", "other"):
        image = make_image(some_contents(len(name)), name)
        image.put(store)
        store.publish(image.draft)
    stray = b"nobody needs it"
    store.put_pack(digest(stray), stray)
    beside = LocalStore(store.files.root, Key())

    def remove_and_collect() -> None:
        if "golden" in beside.images():
            beside.remove_version("golden", 1)
            beside.gc(-60)

    store.packs = Beside(store.packs, store.files, remove_and_collect, is_at_the_end=is_at_the_end)
    report = store.check()
    assert (report.faults, report.versions, report.unused_bytes) == ((), 2 if is_at_the_end else 1, 0)
    assert "golden" not in store.images()


def test_a_version_that_is_removed_while_it_is_verified_is_said_to_be(store: LocalStore, image: Image) -> None:
    def remove_and_collect(progress: VerifyProgress) -> None:
        if store.images():
            store.remove_version("golden", 1)
            store.gc(-60)

    with pytest.raises(NotFoundError, match="removed while it was verified"):
        store.verify("golden", 1, remove_and_collect)
