"""Laws of the cache: made once, whole or not at all, nothing half-made left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_initramfs.cache import Cache, key_of, key_of_tree


def test_an_entry_is_made_once(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(place: Path) -> None:
        made.append(place)
        (place / "file").write_text("content")

    cache = Cache(tmp_path / "cache")
    first = cache.entry("kind", "key", make)
    assert cache.entry("kind", "key", make) == first
    assert len(made) == 1
    assert (first / "file").read_text() == "content"


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def make(place: Path) -> None:
        (place / "half").write_text("x")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        Cache(tmp_path).entry("kind", "key", make)
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_two_builders_wins(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def fast(place: Path) -> None:
        (place / "who").write_text("fast")

    def slow(place: Path) -> None:
        (place / "who").write_text("slow")
        cache.entry("kind", "key", fast)

    assert (cache.entry("kind", "key", slow) / "who").read_text() == "fast"
    assert [path.name for path in tmp_path.iterdir()] == ["kind-key"]


def test_the_entries_used_last_are_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for age, key in enumerate(("a", "b", "c"), start=1):
        place = cache.entry("kind", key, lambda _: None)
        os.utime(place, (age, age))
    cache.entry("other", "a", lambda _: None)
    cache.entry("kind", "a", lambda _: None)  # the oldest, and in use
    cache.forget_old("kind", keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kind-a", "kind-c", "other-a"]


def test_an_entry_of_a_kind_that_begins_alike_or_one_in_use_is_not_forgotten(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for kind in ("golden", "golden-luks"):
        os.utime(cache.entry(kind, "old", lambda _: None), (1, 1))
    cache.entry("golden", "read", lambda _: None)
    cache.entry("golden", "new", lambda _: None)
    cache.forget_old("golden", keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["golden-luks-old", "golden-new", "golden-read"]


@given(st.lists(st.text(max_size=5), max_size=4), st.lists(st.text(max_size=5), max_size=4))
def test_different_parts_have_different_keys(one: list[str], other: list[str]) -> None:
    assert (key_of(one) == key_of(other)) is (one == other)


def test_the_key_of_a_tree_sees_names_contents_and_modes_and_no_byte_code(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    keys = [key_of_tree(tmp_path)]
    (tmp_path / "a").chmod(0o755)
    keys.append(key_of_tree(tmp_path))
    (tmp_path / "a").write_text("2")
    keys.append(key_of_tree(tmp_path))
    (tmp_path / "a").rename(tmp_path / "b")
    keys.append(key_of_tree(tmp_path))
    assert len(set(keys)) == 4
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__/b.pyc").write_text("compiled")
    assert key_of_tree(tmp_path) == keys[-1]


def test_an_entry_just_made_is_young_whatever_time_its_content_brings(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for number in range(3):
        cache.entry("thing", f"{number}", lambda place: None)

    def unpack_something_old(place: Path) -> None:
        os.utime(place, (0, 0))

    made = cache.entry("thing", "old", unpack_something_old)
    cache.forget_old("thing", keep=1)
    assert made.is_dir()
