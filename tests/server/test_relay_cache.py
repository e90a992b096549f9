"""A relay's cache: what is missing is fetched once, what is damaged again, and what live sessions need never goes."""

from __future__ import annotations

import errno
import os
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cloner_core.errors import IntegrityError, RefusedError, UnreachableError
from cloner_core.image.packmap import decode_map
from cloner_core.multicast.content import Content
from cloner_core.seats import ParcelList, make_parcel
from cloner_server.durable import replace_file
from cloner_server.multicast.parcels import ParcelSource, parcel_list
from cloner_server.relay import cache as caches
from cloner_server.relay.cache import CacheFullError, Known, PackCache
from cloner_server.relay.fetching import Fetcher
from cloner_server.relay.words import Fetching, Wanted
from cloner_server.store.local import LocalStore
from store_images import Key, make_image, some_contents

_WAIT_S = 60.0
CONTENT = Content(bytes(16))


@dataclass
class HeadParts:
    """A store's parts as the head gives them, counted; some do not come, or come damaged."""

    store: LocalStore
    asked: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    away_after: int | None = None  # parcels
    may_come: threading.Event = field(default_factory=threading.Event)  # parcels
    damages: int = 0  # parcels that come damaged
    gate: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(1 << 30))  # passed by each part

    def __post_init__(self) -> None:
        self.may_come.set()

    def pack_map(self, name: bytes) -> bytes:
        self.asked["map", name] += 1
        return self.store.pack_map(name)

    def parcels(self, name: bytes) -> ParcelList:
        return parcel_list(self.store, name)

    def parcel(self, name: bytes, ordinal: int) -> bytes:
        self.may_come.wait(_WAIT_S)
        if self.away_after is not None and self.parcels_sent >= self.away_after:
            raise UnreachableError("the head is away")
        pack = decode_map(self.store.pack_map(name)).packs[ordinal]
        self.asked["pack", pack.digest] += 1
        parcel = make_parcel(self.placement(name, ordinal), self.store.pack_path(pack.digest).read_bytes())
        if self.damages:
            self.damages -= 1
            return parcel[:-1] + bytes((parcel[-1] ^ 1,))
        return parcel

    def placement(self, name: bytes, ordinal: int) -> bytes:
        assert self.gate.acquire(timeout=_WAIT_S)
        self.asked["placement", name, ordinal] += 1
        return self.store.placement(name, ordinal)

    @property
    def parcels_sent(self) -> int:
        return sum(count for what, count in self.asked.items() if what[0] == "pack")


@dataclass
class Rack:
    """A store with two versions that share packs, a cache, and who fetches."""

    root: Path
    parts: HeadParts
    limit_bytes: int = 1 << 30
    fetcher: Fetcher | None = None

    def __post_init__(self) -> None:
        self.cache = PackCache(self.root, self.limit_bytes)

    def restart(self) -> None:
        self.stop()
        self.__post_init__()

    def stop(self) -> None:
        if self.fetcher is not None:
            self.fetcher.close()
        self.fetcher = None

    def want(self, *numbers: int) -> Fetcher:
        if self.fetcher is None:
            self.fetcher = Fetcher(self.parts, self.cache)
            self.fetcher.start()
        self.fetcher.want([Wanted(self.map(number).hex(), f"golden:{number}") for number in numbers])
        return self.fetcher

    def map(self, number: int) -> bytes:
        version = bytes.fromhex(self.parts.store.version("golden", number).version)
        return bytes.fromhex(self.parts.store.signed_map(version).map)

    def fetch(self, *numbers: int) -> list[Known]:
        fetcher = self.want(*numbers)
        until(lambda: all(fetcher.ready(self.map(number)) for number in numbers))
        return [known for number in numbers if (known := fetcher.ready(self.map(number)))]

    def progress(self, number: int) -> Fetching:
        assert self.fetcher is not None
        return next(one for one in self.fetcher.progress() if one.pack_map == self.map(number).hex())

    def contents(self, number: int) -> list[bytes]:
        store, name = self.parts.store, self.map(number)
        return [
            make_parcel(store.placement(name, ordinal), store.pack_path(pack.digest).read_bytes())
            for ordinal, pack in enumerate(decode_map(store.pack_map(name)).packs)
        ]

    def given(self, number: int) -> list[bytes]:
        """Return what a sender gets out of the cache."""
        name = self.map(number)
        source = ParcelSource(self.cache.files, name, parcel_list(self.parts.store, name), CONTENT)
        try:
            return [bytes(CONTENT.encrypted(ordinal, source(ordinal))) for ordinal in range(len(self.contents(number)))]
        finally:
            source.close()


def until(is_so: Callable[[], Any]) -> None:
    ends_s = time.monotonic() + _WAIT_S
    while not is_so():
        assert time.monotonic() < ends_s, "it does not come about"
        time.sleep(0.01)


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Rack]:
    store = LocalStore(tmp_path / "store", Key())
    files = some_contents(files=16)
    for contents in (files, files | {b"etc/new": os.urandom(5000)}):
        image = make_image(contents, pack_every=1)
        image.put(store)
        store.publish(image.draft)
    made = Rack(tmp_path / "cache", HeadParts(store))
    yield made
    made.parts.gate.release(1 << 20)
    made.stop()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloner_server.relay.fetching._AGAIN_S", 0.02)
    monkeypatch.setattr("cloner_server.relay.fetching._FAULT_AGAIN_S", 0.02)


@pytest.fixture(autouse=True)
def a_cache_of_its_own(tmp_path: Path) -> Iterator[None]:
    with caches.held(tmp_path / "cache"):
        yield


def until_let(gate: threading.Semaphore, is_so: Callable[[], Any]) -> None:
    """Let one part after the other pass until something is so."""

    def let() -> Any:
        gate.release()
        return is_so()

    until(let)


def test_a_version_is_fetched_once_and_given_as_it_is(rack: Rack) -> None:
    [known] = rack.fetch(1)
    assert rack.given(1) == rack.contents(1)
    assert known.parcels == parcel_list(rack.parts.store, rack.map(1))
    assert rack.progress(1) == Fetching(rack.map(1).hex(), len(rack.contents(1)), len(rack.contents(1)), True)
    assert set(rack.parts.asked.values()) == {1}
    on_disk = sum(path.stat().st_size for path in rack.root.rglob("*") if path.is_file())
    assert rack.cache.used_bytes == on_disk


def test_another_version_fetches_only_the_packs_it_does_not_share(rack: Rack) -> None:
    rack.fetch(1)
    old = {pack.digest for pack in decode_map(rack.parts.store.pack_map(rack.map(1))).packs}
    new = {pack.digest for pack in decode_map(rack.parts.store.pack_map(rack.map(2))).packs}
    assert old & new
    assert new - old
    before = rack.parts.parcels_sent
    rack.fetch(1, 2)
    assert rack.parts.parcels_sent - before == len(new - old)
    assert rack.given(2) == rack.contents(2)
    assert rack.given(1) == rack.contents(1)


def test_what_is_here_is_not_fetched_again_by_a_relay_that_was_started_again(rack: Rack) -> None:
    rack.fetch(1)
    before = rack.parts.asked.total()
    rack.restart()
    rack.fetch(1)
    assert rack.parts.asked.total() == before
    assert rack.given(1) == rack.contents(1)


def test_a_fetch_that_is_cut_off_goes_on_where_it_was(rack: Rack) -> None:
    rack.parts.away_after = 5
    rack.want(1)
    until(lambda: rack.parts.parcels_sent >= 5)
    rack.restart()  # a kill, too: what was half written is gone
    (rack.root / "packs" / ".half-1234").write_bytes(b"half")
    rack.restart()
    assert not (rack.root / "packs" / ".half-1234").exists()
    rack.parts.away_after = None
    rack.fetch(1)
    assert rack.given(1) == rack.contents(1)
    assert all(count <= 2 for what, count in rack.parts.asked.items() if what[0] == "pack")
    assert rack.parts.parcels_sent <= len(rack.contents(1)) + 4, "at most those that were on their way came twice"


def test_a_parcel_that_comes_damaged_is_asked_for_again(rack: Rack) -> None:
    rack.parts.damages = 2
    rack.fetch(1)
    assert rack.given(1) == rack.contents(1)


def test_a_head_that_gives_only_damaged_parcels_is_told_so_and_nothing_of_it_is_kept(rack: Rack) -> None:
    rack.parts.damages = 1 << 30
    fetcher = rack.want(1)
    until(lambda: "is damaged" in rack.progress(1).fault)
    assert list(rack.cache.files.packs.iterdir()) == []
    assert fetcher.ready(rack.map(1)) is None
    rack.parts.damages = 0
    until(lambda: fetcher.ready(rack.map(1)))
    assert rack.progress(1).fault == ""


def test_what_was_damaged_on_the_disk_is_not_given_and_is_fetched_again(rack: Rack) -> None:
    [known] = rack.fetch(1)
    for ordinal, part in ((2, "pack"), (5, "record")):
        digest = known.pack_map.packs[ordinal].digest
        path = rack.cache.files.where_pack(digest)
        path = path if part == "pack" else rack.cache.files.record_path(known.name, ordinal)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"parcel 2 .* is damaged"):
        rack.given(1)
    before = rack.parts.parcels_sent
    assert rack.fetcher is not None
    rack.fetcher.suspect(known.name)
    assert rack.fetcher.ready(known.name) is None, "no sender begins with what is not known to be whole"
    until(lambda: rack.fetcher and rack.fetcher.ready(known.name))
    assert rack.parts.parcels_sent - before == 2
    assert rack.given(1) == rack.contents(1)


def test_a_pack_of_another_version_that_is_damaged_is_noticed_before_it_is_used(rack: Rack) -> None:
    [known] = rack.fetch(1)
    for pack in known.pack_map.packs:
        path = rack.cache.files.where_pack(pack.digest)
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    rack.fetch(2)
    assert rack.given(2) == rack.contents(2)


def too_small_for_both(rack: Rack) -> None:
    """Have an empty cache that lacks one byte to have both versions."""
    rack.fetch(1, 2)
    rack.limit_bytes = rack.cache.used_bytes - 1
    rack.stop()
    for directory in (rack.cache.files.packs, rack.cache.files.maps):
        shutil.rmtree(directory)
    rack.restart()


def test_what_was_used_last_the_longest_ago_goes_first(rack: Rack) -> None:
    too_small_for_both(rack)
    [known] = rack.fetch(1)
    rack.want()
    os.utime(rack.cache.files.map_path(known.name), (1, 1))
    rack.fetch(2)
    assert rack.cache.used_bytes <= rack.limit_bytes
    assert rack.given(2) == rack.contents(2)
    assert rack.cache.known(known.name) is None
    assert all(rack.cache.has_pack(known, ordinal) for ordinal in range(len(known.pack_map.packs))), "they are younger"


def test_what_a_live_session_needs_does_not_go_and_the_other_is_told_the_bytes(rack: Rack) -> None:
    too_small_for_both(rack)
    rack.fetch(1)
    fetcher = rack.want(1, 2)
    until(lambda: rack.progress(2).fault)
    assert re.search(r" wants .*B more, and the cache has .*B free of .*B beside what live", rack.progress(2).fault)
    assert rack.given(1) == rack.contents(1)
    rack.want(2)
    until(lambda: fetcher.ready(rack.map(2)))


def test_what_was_in_the_way_and_is_not_any_more_is_not_told_any_more(
    rack: Rack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloner_server.relay.fetching._FAULT_AGAIN_S", _WAIT_S)
    too_small_for_both(rack)
    rack.fetch(1)
    fetcher = rack.want(1, 2)
    until(lambda: rack.progress(2).fault)
    rack.parts.may_come.clear()
    fetcher.want([Wanted(rack.map(2).hex(), "golden:2")])
    assert rack.progress(2).fault == "", "the head may ask before it is tried again"
    rack.parts.may_come.set()
    until(lambda: fetcher.ready(rack.map(2)))


def test_a_fault_is_told_no_more_once_what_was_missing_is_being_fetched(
    rack: Rack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches, "_RESERVE_BYTES", 1 << 60)
    rack.want(1)
    until(lambda: rack.progress(1).fault)
    rack.parts.may_come.clear()
    monkeypatch.setattr(caches, "_RESERVE_BYTES", 0)
    try:
        until(lambda: rack.progress(1).of and not rack.progress(1).fault)
        assert rack.progress(1).have == 0
    finally:
        rack.parts.may_come.set()


def test_a_disk_without_room_is_a_clear_failure(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "_RESERVE_BYTES", 1 << 60)
    with pytest.raises(CacheFullError, match=r"golden:1 wants 1.0 MiB more, and the cache has 0 B free"):
        rack.cache.make_room("golden:1", 1 << 20)


def test_a_disk_that_is_full_is_told_and_what_comes_later_is_kept(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    is_full = threading.Event()
    is_full.set()
    real = replace_file

    def write(path: Path, content: bytes | memoryview, mode: int, *, is_durable: bool) -> None:
        if is_full.is_set() and path.parent.name == "packs":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(path, content, mode, is_durable=is_durable)

    monkeypatch.setattr(caches, "replace_file", write)
    fetcher = rack.want(1)
    until(lambda: "No space left" in rack.progress(1).fault)
    is_full.clear()
    until(lambda: fetcher.ready(rack.map(1)))
    assert rack.given(1) == rack.contents(1)


def test_what_is_here_is_sent_from_a_disk_that_cannot_be_written_any_more(
    rack: Rack, monkeypatch: pytest.MonkeyPatch
) -> None:
    rack.fetch(1)
    rack.want()

    def touch(path: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(os, "utime", touch)
    rack.fetch(1)
    assert rack.given(1) == rack.contents(1)


def test_a_cache_that_cannot_be_read_is_told_and_tried_again(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    real = rack.cache._read

    def read(name: bytes) -> Known:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(rack.cache, "_read", read)
    fetcher = rack.want(1)
    until(lambda: "Input/output error" in rack.progress(1).fault)
    monkeypatch.setattr(rack.cache, "_read", real)
    until(lambda: fetcher.ready(rack.map(1)))


def test_two_relays_do_not_share_a_cache(rack: Rack) -> None:
    with pytest.raises(RefusedError, match="another relay"), caches.held(rack.root):
        pass


def test_a_directory_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".profile").write_text("mine")
    with pytest.raises(RefusedError, match="not empty"), caches.held(tmp_path / "home"):
        pass
    assert (tmp_path / "home" / ".profile").read_text() == "mine"


def test_what_is_all_here_does_not_wait_for_what_is_fetched_when_a_relay_was_started_again(rack: Rack) -> None:
    rack.fetch(1)
    rack.restart()
    rack.parts.gate = threading.Semaphore(0)
    fetcher = rack.want(2, 1)
    until(lambda: fetcher.ready(rack.map(1)))
    assert not rack.progress(2).is_ready
    assert rack.parts.asked["map", rack.map(1)] == 1


def test_what_is_all_here_waits_no_longer_than_the_parcels_that_are_on_their_way(rack: Rack) -> None:
    rack.fetch(1)
    rack.want()
    rack.parts.gate = gate = threading.Semaphore(0)
    fetcher = rack.want(2)
    until(lambda: rack.progress(2).of)
    fetcher.want([Wanted(rack.map(number).hex(), f"golden:{number}") for number in (2, 1)])
    until_let(gate, lambda: fetcher.ready(rack.map(1)))
    assert not rack.progress(2).is_ready, "it goes on behind"
    gate.release(1 << 20)
    until(lambda: fetcher.ready(rack.map(2)))
    assert rack.given(2) == rack.contents(2)
    assert set(rack.parts.asked.values()) == {1}, "what had come was not fetched again"


def test_what_is_to_be_read_again_does_not_wait_for_what_is_fetched(rack: Rack) -> None:
    [known] = rack.fetch(1)
    path = rack.cache.files.where_pack(known.pack_map.packs[0].digest)
    path.write_bytes(bytes(path.stat().st_size))
    rack.parts.gate = gate = threading.Semaphore(0)
    fetcher = rack.want(2, 1)
    until(lambda: rack.progress(2).of)
    fetcher.suspect(known.name)
    until_let(gate, lambda: fetcher.ready(rack.map(1)))
    assert not rack.progress(2).is_ready
    assert rack.given(1) == rack.contents(1)


def test_what_nobody_wants_any_more_is_fetched_no_further(rack: Rack) -> None:
    rack.parts.away_after = 3
    rack.want(1)
    until(lambda: rack.parts.parcels_sent >= 3)
    rack.want(2)
    rack.parts.away_after = None
    assert rack.fetcher is not None
    until(lambda: rack.fetcher and rack.fetcher.ready(rack.map(2)))
    assert rack.fetcher.ready(rack.map(1)) is None
    assert [one.pack_map for one in rack.fetcher.progress()] == [rack.map(2).hex()]
