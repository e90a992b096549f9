"""A version is in the store whole and proven, or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from cloner_core.errors import IntegrityError, InvalidError, NotFoundError, RefusedError
from cloner_core.image.compression import compress, compress_onto, decompress
from cloner_core.image.digest import digest
from cloner_core.image.linting.finding import Finding, Grade, Place
from cloner_core.image.pack import ENTRY
from cloner_core.image.version import PackOffer, verify_version
from cloner_server.store.local import LocalStore
from store_images import Image, Key, files_from, make_image, some_contents


def clock() -> datetime:
    return datetime(2026, 11, 20, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store", Key(), clock=clock)


@pytest.fixture
def image() -> Image:
    return make_image(some_contents())


def test_what_is_published_is_read_back(store: LocalStore, image: Image) -> None:
    image.put(store)
    record = store.publish(image.draft)
    assert (record.image, record.number, record.version) == ("golden", 1, image.version.hex())
    assert record.published_at == "2026-11-20T00:00:00+00:00"
    verify_version(image.version, bytes.fromhex(record.signature), Key().public_key)
    assert files_from(store, image.version) == some_contents()
    assert store.version("golden") == record == store.version("golden", 1)
    assert store.images() == ["golden"]
    report = store.check(read_data=True)
    assert report.faults == ()
    assert (report.versions, report.packs, report.unused_bytes) == (1, len(image.packs), 0)
    assert os.listdir(store.files.temporary) == []


def test_a_record_with_keys_of_a_newer_server_is_read(store: LocalStore, image: Image) -> None:
    image.put(store)
    record = store.publish(image.draft)
    path = store.record_path("golden", 1)
    told = json.loads(path.read_text())
    path.chmod(0o600)
    path.write_text(json.dumps(told | {"colour": "green"}))
    assert store.version("golden") == record


def test_findings_are_kept_and_a_record_without_them_is_read(store: LocalStore, image: Image) -> None:
    image.put(store)
    finding = Finding("private-key", Grade.SECRET, "make another", 2, 400, (Place("/root/id", "PRIVATE KEY"),))
    store.publish(msgspec.structs.replace(image.draft, findings=(finding,)))
    assert store.version("golden").findings == (finding,)
    path = store.record_path("golden", 1)
    told = json.loads(path.read_text())
    del told["findings"]
    path.chmod(0o600)
    path.write_text(json.dumps(told))
    assert store.version("golden").findings == ()


def test_the_same_tree_published_again_is_another_number_and_the_same_version(store: LocalStore, image: Image) -> None:
    image.put(store)
    first, second = store.publish(image.draft), store.publish(image.draft)
    assert (second.number, second.version) == (2, first.version)
    assert store.numbers("golden") == [1, 2]


def test_nothing_is_there_before_it_is_published(store: LocalStore, image: Image) -> None:
    image.put(store)
    assert store.images() == []
    assert store.base("golden") is None
    for ask in (
        lambda: store.version("golden"),
        lambda: store.numbers("golden"),
        lambda: store.signed_map(image.version),
        lambda: store.root(image.version),
        lambda: store.pack_path(bytes(32)),
        lambda: store.segment_path(bytes(32)),
        lambda: store.placement(bytes(32), 0),
        lambda: store.remove_version("golden", 1),
    ):
        with pytest.raises(NotFoundError):
            ask()


def test_a_number_that_is_not_there_is_said_with_those_that_are(store: LocalStore, image: Image) -> None:
    image.put(store)
    store.publish(image.draft)
    with pytest.raises(NotFoundError, match=r"no version 7.*it has 1"):
        store.version("golden", 7)


def test_a_draft_without_one_of_its_packs_is_refused(store: LocalStore, image: Image) -> None:
    image.put(store)
    store.pack_path(image.packs[2].digest).unlink()
    with pytest.raises(IntegrityError, match=r"1 of .* packs are not in the store"):
        store.publish(image.draft)
    assert store.images() == []


def test_a_draft_without_one_of_its_segments_is_refused(store: LocalStore, image: Image) -> None:
    image.put(store)
    store.segment_path(image.segments[0].ref.digest).unlink()
    with pytest.raises(IntegrityError, match="not complete"):
        store.publish(image.draft)
    assert store.images() == []


def _lie(image: Image, change: Callable[[PackOffer], PackOffer]) -> Image:
    offers = (change(image.draft.packs[0]), *image.draft.packs[1:])
    return Image(msgspec.structs.replace(image.draft, packs=offers), image.segments, image.packs)


def _other_chunk(offer: PackOffer) -> PackOffer:
    entries = bytearray(offer.entries)
    entries[0] ^= 1
    return msgspec.structs.replace(offer, entries=bytes(entries))


@pytest.mark.parametrize(
    "change",
    [
        _other_chunk,
        lambda offer: msgspec.structs.replace(offer, raw_size=offer.raw_size - 1),
        lambda offer: msgspec.structs.replace(offer, stored_size=offer.stored_size + 1),
        lambda offer: msgspec.structs.replace(offer, entries=offer.entries[ENTRY.size :]),
        lambda offer: msgspec.structs.replace(offer, digest=bytes(32)),
    ],
    ids=["another chunk", "another raw size", "another stored size", "a chunk less", "another pack"],
)
def test_a_draft_that_lies_about_a_pack_is_refused(
    store: LocalStore, image: Image, change: Callable[[PackOffer], PackOffer]
) -> None:
    image.put(store)
    with pytest.raises(IntegrityError):
        store.publish(_lie(image, change).draft)
    assert store.images() == []


@pytest.mark.parametrize("name", ["..", "a/b", "", "UPPER"])
def test_a_draft_with_a_name_that_leads_elsewhere_is_refused(store: LocalStore, image: Image, name: str) -> None:
    image.put(store)
    with pytest.raises(InvalidError):
        store.publish(msgspec.structs.replace(image.draft, image=name))


def test_bytes_under_a_wrong_digest_are_never_kept(store: LocalStore, image: Image) -> None:
    pack, segment = image.packs[0], image.segments[0]
    with pytest.raises(IntegrityError):
        store.put_pack(pack.digest, pack.stored[:-1])
    with pytest.raises(IntegrityError):
        store.put_segment(digest(b"x"), len(segment.raw), pack.stored)
    with pytest.raises(RefusedError):
        store.put_pack(digest(bytes(5 << 20)), bytes(5 << 20))
    with pytest.raises(RefusedError):
        store.put_segment(digest(b"x"), 1 << 40, b"")
    assert list(store.packs.names()) == list(store.segments.names()) == []


def test_a_segment_comes_as_what_others_have_not(store: LocalStore, image: Image) -> None:
    known, new = image.segments[0], make_image({b"a": b"1", b"b": b"2", b"c": b"other"}).segments[0]
    store.put_segment(known.ref.digest, len(known.raw), compress(known.raw))
    frame, onto = compress_onto(new.raw, known.raw), (known.ref.digest, len(known.raw))
    assert store.put_segment(new.ref.digest, len(new.raw), frame, [onto])
    assert decompress(store.segments.read(new.ref.digest), len(new.raw), "it") == new.raw


def test_a_segment_that_is_not_what_its_parts_give_is_never_kept(store: LocalStore, image: Image) -> None:
    known, new = image.segments[0], make_image({b"a": b"1", b"b": b"2", b"c": b"other"}).segments[0]
    name, size, onto = new.ref.digest, len(new.raw), (known.ref.digest, len(known.raw))
    frame = compress_onto(new.raw, known.raw)
    with pytest.raises(NotFoundError):
        store.put_segment(name, size, frame, [onto])
    store.put_segment(known.ref.digest, len(known.raw), compress(known.raw))
    with pytest.raises(IntegrityError):
        store.put_segment(name, size, compress_onto(new.raw[::-1], known.raw), [onto])
    with pytest.raises(IntegrityError):
        store.put_segment(name, size, frame, [(known.ref.digest, len(known.raw) - 1)])
    with pytest.raises(RefusedError):
        store.put_segment(name, size, frame, [onto] * 3)
    with pytest.raises(RefusedError):
        store.put_segment(name, size, frame, [(known.ref.digest, 1 << 40)])
    assert [found for found, _ in store.segments.names()] == [known.ref.digest]


def test_a_pack_is_kept_once(store: LocalStore, image: Image) -> None:
    pack = image.packs[0]
    assert store.put_pack(pack.digest, pack.stored)
    assert not store.put_pack(pack.digest, pack.stored)


def test_the_next_version_may_use_the_packs_of_the_last(store: LocalStore, image: Image) -> None:
    image.put(store)
    store.publish(image.draft)
    base = store.base("golden")
    assert base is not None
    assert base.version == image.version
    contents = some_contents() | {b"new": b"something new"}
    second = make_image(contents)
    known = {entry for offer in base.packs for entry in ENTRY.iter_unpack(offer.entries)}
    chunk = b"something new"
    only_new = make_image({b"new": chunk})
    assert (digest(chunk), 0, len(chunk)) not in known
    draft = msgspec.structs.replace(second.draft, packs=only_new.draft.packs, base=base.version)
    for segment in second.segments:
        store.segments.put(segment.ref.digest, b"")  # replaced by the right one below
    Image(draft, second.segments, only_new.packs).put(store)
    record = store.publish(draft)
    assert record.number == 2
    assert files_from(store, second.version) == contents
    assert store.check(read_data=True).faults == ()


def test_a_capture_whose_base_is_gone_is_told_so(store: LocalStore, image: Image) -> None:
    image.put(store)
    with pytest.raises(IntegrityError, match="base of the capture is gone"):
        store.publish(msgspec.structs.replace(image.draft, base=bytes(32)))


def test_a_store_without_a_key_only_reads(store: LocalStore, image: Image) -> None:
    image.put(store)
    store.publish(image.draft)
    reader = LocalStore(store.files.root)
    assert files_from(reader, image.version) == some_contents()
    with pytest.raises(RefusedError):
        reader.publish(image.draft)
