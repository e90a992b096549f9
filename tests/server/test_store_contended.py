"""Two captures into one image at once: one is published, the other is told so and loses nothing but the first try."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cloner_agent.capture.job import Captured, CaptureOptions, capture
from cloner_core.errors import ConflictError
from cloner_core.image.pack import Pack
from cloner_core.image.tree import SegmentDelta, SegmentRef
from cloner_core.image.version import Base, Draft, VersionRecord
from cloner_server.store.local import LocalSink, LocalStore
from store_images import Key


@dataclass
class Interrupted:
    """A sink before whose publish something else happens."""

    sink: LocalSink
    meanwhile: list[Callable[[], object]] = field(default_factory=list)

    def base(self, image: str) -> Base | None:
        return self.sink.base(image)

    def put_pack(self, pack: Pack) -> None:
        self.sink.put_pack(pack)

    def put_segment(self, ref: SegmentRef, stored: bytes, delta: SegmentDelta | None = None) -> None:
        self.sink.put_segment(ref, stored, delta)

    def publish(self, draft: Draft) -> VersionRecord:
        while self.meanwhile:
            self.meanwhile.pop()()
        return self.sink.publish(draft)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store", Key())


def tree(tmp_path: Path, name: str) -> Path:
    path = tmp_path / name
    path.mkdir()
    (path / "who").write_text(name)
    (path / "data").write_bytes(os.urandom(6 << 20))
    return path


def taken(store: LocalStore, root: Path, *meanwhile: Callable[[], object], image: str = "golden") -> Captured:
    sink = Interrupted(LocalSink(store), list(meanwhile))
    return capture(root, sink, CaptureOptions(image, esp=None, author=root.name, source="host"))


@pytest.mark.parametrize("versions", [0, 1])
def test_of_two_captures_one_is_published_and_the_other_told_and_its_retry_sends_nothing(
    store: LocalStore, tmp_path: Path, versions: int
) -> None:
    one, two = tree(tmp_path, "one"), tree(tmp_path, "two")
    for _ in range(versions):
        taken(store, tree(tmp_path, "before"))
    with pytest.raises(ConflictError) as told:
        taken(store, two, lambda: taken(store, one))
    first = versions + 1
    assert f"golden:{first} (by one, from host) was published" in told.value.message
    assert f"it began after golden:{versions}" in told.value.message
    assert f"golden:{first + 1}" in told.value.hint
    assert store.numbers("golden")[-1] == first
    assert store.check(read_data=True).faults == ()
    assert store.gc(3600).files == 0, "what came late is kept"
    again = taken(store, two)
    assert (again.record.number, again.new_packs) == (first + 1, 0)
    assert store.late_paths() == []
    assert store.check(read_data=True).faults == ()


def test_what_came_late_goes_with_the_grace(store: LocalStore, tmp_path: Path) -> None:
    one, two = tree(tmp_path, "one"), tree(tmp_path, "two")
    with pytest.raises(ConflictError):
        taken(store, two, lambda: taken(store, one))
    assert store.gc(-60).files > 0
    assert (store.late_paths(), store.check(read_data=True).unused_bytes) == ([], 0)
    assert taken(store, two).new_packs == 2


def test_captures_of_two_images_are_none_of_each_others_business(store: LocalStore, tmp_path: Path) -> None:
    one, two = tree(tmp_path, "one"), tree(tmp_path, "two")
    taken(store, two, lambda: taken(store, one, image="other"))
    assert (store.numbers("golden"), store.numbers("other")) == ([1], [1])


def test_a_version_that_was_removed_meanwhile_was_not_published_meanwhile(store: LocalStore, tmp_path: Path) -> None:
    one = tree(tmp_path, "one")
    taken(store, one)
    taken(store, tree(tmp_path, "two"))
    record = taken(store, one, lambda: store.remove_version("golden", 2)).record
    assert (record.number, store.numbers("golden")) == (3, [1, 3])


def test_an_image_without_any_version_left_goes_on_counting(store: LocalStore, tmp_path: Path) -> None:
    one = tree(tmp_path, "one")
    taken(store, one)
    store.remove_version("golden", 1)
    assert taken(store, one).record.number == 2
