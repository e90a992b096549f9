"""The weights of a store are those that sets of digests give, however little fits into memory at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cloner_core.image.digest import digest
from cloner_server.store.local import LocalStore
from cloner_server.store.stats import measure
from cloner_server.store.tally import Source, tally
from store_images import Image, Key, make_image

THINGS = {digest(bytes([number])): number * 1000 + 1 for number in range(40)}
HELD = st.lists(st.sampled_from(sorted(THINGS)), unique=True, max_size=40)


@given(st.lists(st.lists(HELD, max_size=4), max_size=4), st.integers(1, 50))
@settings(deadline=None)
def test_a_tally_is_what_sets_say_whatever_fits_at_once(groups: list[list[list[bytes]]], at_once: int) -> None:
    passes = 0

    def items(held: list[bytes]) -> Iterator[tuple[bytes, int]]:
        nonlocal passes
        passes += 1
        yield from ((name, THINGS[name]) for name in held)

    members = [(group, held) for group, all_held in enumerate(groups) for held in all_held]
    counted = tally([Source(group, partial(items, held)) for group, held in members], at_once)

    def weight(names: set[bytes]) -> int:
        return sum(THINGS[name] for name in names)

    def others(keep: list[list[bytes]]) -> set[bytes]:
        return {name for held in keep for name in held}

    everything = others([held for _, held in members])
    assert counted.total == weight(everything)
    for place, (_, held) in enumerate(members):
        rest = others([other for at, (_, other) in enumerate(members) if at != place])
        assert counted.member[place] == weight(set(held))
        assert counted.member_only[place] == weight(set(held) - rest)
    for group in range(len(counted.group)):
        own = others([held for of, held in members if of == group])
        rest = others([held for of, held in members if of != group])
        assert counted.group[group] == weight(own)
        assert counted.group_only[group] == weight(own - rest)
    if at_once < len(everything):
        assert passes > len(members), "it was counted in more than one pass"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store", Key())


def publish(store: LocalStore, contents: dict[bytes, bytes], name: str = "golden") -> Image:
    image = make_image(contents, name, pack_every=1)  # a pack for each chunk: what is shared is shared in both
    image.put(store)
    store.publish(image.draft)
    return image


def test_a_store_tells_what_each_image_and_version_weighs_and_alone_holds(store: LocalStore) -> None:
    one, two, three = (os.urandom(1000) for _ in range(3))
    publish(store, {b"a": one, b"again": one})
    publish(store, {b"a": one, b"b": two})
    publish(store, {b"b": two, b"c": three}, "other")
    stats = store.stats()
    weights = {(s.image, s.number): (s.logical_bytes, s.unique_bytes) for s in stats.versions}
    assert weights == {("golden", 1): (2000, 1000), ("golden", 2): (2000, 2000), ("other", 1): (2000, 2000)}
    stored = store.packs.size(make_image({b"a": one}).packs[0].digest)
    assert stored is not None
    only = {(s.image, s.number): (s.stored_bytes // stored, s.only_bytes // stored) for s in stats.versions}
    assert only == {("golden", 1): (1, 0), ("golden", 2): (2, 0), ("other", 1): (2, 1)}
    by_image = {s.image: (s.versions, s.logical_bytes, s.unique_bytes, s.only_bytes // stored) for s in stats.images}
    assert by_image == {"golden": (2, 4000, 2000, 1), "other": (1, 2000, 2000, 1)}
    assert (stats.logical_bytes, stats.unique_bytes, stats.stored_bytes) == (6000, 3000, 3 * stored)
    assert (stats.unused_bytes, stats.unread) == (0, ())
    # Others write to the filesystem meanwhile.
    assert replace(measure(store, at_once=1), free_bytes=stats.free_bytes) == stats


def test_what_only_a_version_holds_is_what_its_removal_frees(store: LocalStore) -> None:
    for version in range(4):
        publish(
            store,
            {b"%d" % number: os.urandom(500) if number > version else b"%d" % number * 500 for number in range(6)},
        )
    for path in store.files.root.rglob("*"):
        if path.is_file():
            os.utime(path, (1, 1))
    before = {share.number: share for share in store.stats().versions}
    packs = sum(entry.stat().st_size for _, entry in store.packs.names())
    store.remove_version("golden", 2)
    store.gc(0)
    assert packs - sum(entry.stat().st_size for _, entry in store.packs.names()) == before[2].only_bytes


def test_what_nothing_needs_is_unused_and_what_cannot_be_read_is_named(store: LocalStore) -> None:
    image = publish(store, {b"a": b"content"})
    stray = os.urandom(100)
    store.put_pack(digest(stray), stray)
    assert store.stats().unused_bytes == 100
    publish(store, {b"b": b"other"})
    store.current_path(image.version).unlink()
    stats = store.stats()
    assert [share.number for share in stats.versions] == [2]
    assert stats.unread[0].startswith("golden:1: ")


def test_an_empty_store_weighs_nothing(store: LocalStore) -> None:
    stats = store.stats()
    assert (stats.logical_bytes, stats.stored_bytes, stats.images) == (0, 0, ())
