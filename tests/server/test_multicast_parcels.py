"""The parcels of a version: named as receivers will name them, kept, and given to a sender whole or not at all."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from cloner_core.errors import IntegrityError, NotFoundError
from cloner_core.image.digest import digest
from cloner_core.image.packmap import decode_map
from cloner_core.multicast.content import Content
from cloner_core.seats import ParcelList, make_parcel
from cloner_server.multicast.parcels import ParcelSource, parcel_list
from cloner_server.store.local import LocalStore
from store_images import Key, make_image, some_contents

CONTENT = Content(bytes(16))


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    opened = LocalStore(tmp_path / "store", Key())
    image = make_image(some_contents(files=40))
    image.put(opened)
    opened.publish(image.draft)
    return opened


def map_of(store: LocalStore) -> bytes:
    return bytes.fromhex(store.signed_map(bytes.fromhex(store.version("golden").version)).map)


def contents(store: LocalStore) -> list[bytes]:
    name = map_of(store)
    packs = decode_map(store.pack_map(name)).packs
    return [
        make_parcel(store.placement(name, ordinal), store.pack_path(pack.digest).read_bytes())
        for ordinal, pack in enumerate(packs)
    ]


def damage(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def a_pack(store: LocalStore, ordinal: int) -> Path:
    return store.pack_path(decode_map(store.pack_map(map_of(store))).packs[ordinal].digest)


def test_parcels_are_named_by_their_bytes_in_the_order_of_the_map(store: LocalStore) -> None:
    wanted = contents(store)
    assert len(wanted) > 10
    told: list[tuple[int, int]] = []
    listed = parcel_list(store, map_of(store), lambda done, of: told.append((done, of)))
    assert listed == ParcelList(tuple(digest(one).hex() for one in wanted), tuple(map(len, wanted)))
    assert told[-1] == (len(wanted), len(wanted))


def test_a_list_that_was_made_is_read_and_the_packs_are_not(store: LocalStore) -> None:
    listed = parcel_list(store, map_of(store))
    a_pack(store, 3).unlink()
    assert parcel_list(store, map_of(store)) == listed


@pytest.mark.parametrize("at", [0, 40, -3])
def test_a_list_that_was_damaged_is_made_again(store: LocalStore, at: int) -> None:
    listed = parcel_list(store, map_of(store))
    damage(store.parcel_list_path(map_of(store)), at)
    assert parcel_list(store, map_of(store)) == listed
    a_pack(store, 3).unlink()
    assert parcel_list(store, map_of(store)) == listed


def test_a_list_of_other_packs_is_made_again(store: LocalStore) -> None:
    listed = parcel_list(store, map_of(store))
    other = msgspec.json.encode(ParcelList(listed.digests[1:], listed.sizes[1:]))
    store.parcel_list_path(map_of(store)).write_bytes(digest(other) + other)
    assert parcel_list(store, map_of(store)) == listed


def test_a_list_that_cannot_be_kept_is_given_all_the_same(store: LocalStore) -> None:
    (store.files_root / "parcels").write_text("in the way")
    assert len(parcel_list(store, map_of(store)).sizes) == len(contents(store))


def test_a_damaged_pack_is_named_before_anything_is_sent(store: LocalStore) -> None:
    damage(a_pack(store, 5), 100)
    with pytest.raises(IntegrityError, match=a_pack(store, 5).name):
        parcel_list(store, map_of(store))
    assert not store.parcel_list_path(map_of(store)).exists()


def test_the_list_goes_with_its_map(store: LocalStore) -> None:
    parcel_list(store, map_of(store))
    path = store.parcel_list_path(map_of(store))
    store.gc(-10.0)
    assert path.exists()
    store.remove_version("golden", 1)
    store.gc(-10.0)
    assert not path.exists()


def test_a_source_gives_every_parcel_in_any_order(store: LocalStore) -> None:
    wanted = contents(store)
    source = ParcelSource(store, map_of(store), parcel_list(store, map_of(store)), CONTENT)
    last = len(wanted) - 1
    order = [*range(len(wanted)), 0, last, last, 0, 5, 6, 2, 7]
    given = [source(number) for number in order]
    source.close()
    assert [bytes(one) for one in given] == [CONTENT.encrypted(number, wanted[number]) for number in order]
    assert bytes(given[0]) != wanted[0], "it is sent as it is"


def test_the_next_parcel_is_there_when_it_is_asked_for(store: LocalStore) -> None:
    wanted = contents(store)
    source = ParcelSource(store, map_of(store), parcel_list(store, map_of(store)), CONTENT)
    source(0)
    assert source._ahead[1].result(10) == CONTENT.encrypted(1, wanted[1])
    a_pack(store, 1).unlink()
    assert source(1) == CONTENT.encrypted(1, wanted[1])
    source.close()


def test_a_source_gives_no_byte_of_a_damaged_pack(store: LocalStore) -> None:
    source = ParcelSource(store, map_of(store), parcel_list(store, map_of(store)), CONTENT)
    damage(a_pack(store, 4), 50)
    a_pack(store, 6).unlink()
    with pytest.raises(IntegrityError, match=r"parcel 4 .* is damaged"):
        source(4)
    with pytest.raises(NotFoundError):
        source(6)
    source.close()


def test_a_source_of_another_map_is_refused(store: LocalStore) -> None:
    listed = parcel_list(store, map_of(store))
    with pytest.raises(IntegrityError, match="cannot be of a map"):
        ParcelSource(store, map_of(store), ParcelList(listed.digests[1:], listed.sizes[1:]), CONTENT)
