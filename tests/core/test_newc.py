"""Laws of the archive writer, checked by a reader of its own and by cpio."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core import newc
from cloner_core.errors import InvalidError
from initramfsbench.archives import read

PART = st.binary(min_size=1, max_size=20).filter(
    lambda raw: not {0, 0x2F} & set(raw) and raw not in (b".", b"..", newc.TRAILER)
)
PATH = st.lists(PART, min_size=1, max_size=4).map(b"/".join)
MODE = st.sampled_from([stat.S_IFREG | 0o644, stat.S_IFREG | 0o755, stat.S_IFLNK | 0o777])
ENTRY = st.builds(newc.Entry, PATH, MODE, st.binary(max_size=50))

MIXED = (
    newc.file("etc/cloner/ca.pem", b"pem"),
    newc.file("init", b"#!/bin/sh\n", 0o755),
    newc.symlink("bin", "usr/bin"),
    newc.character_device("dev/console", 5, 1),
    newc.file("usr/empty", b""),
)


@given(st.lists(ENTRY, max_size=8))
def test_what_is_written_is_read_back(entries: list[newc.Entry]) -> None:
    raw = newc.pack(entries)
    assert len(raw) % 4 == 0
    assert [(one.path, one.mode, one.data) for one in read(raw)] == [(one.path, one.mode, one.data) for one in entries]


def test_everything_belongs_to_root_and_the_epoch() -> None:
    members = read(newc.pack(newc.with_parents(MIXED)))
    assert {one.owner for one in members} == {(0, 0)}
    assert {one.mtime for one in members} == {0}


@given(
    st.lists(ENTRY, max_size=8, unique_by=lambda entry: entry.path).flatmap(
        lambda e: st.tuples(st.just(e), st.permutations(e))
    )
)
def test_the_order_given_does_not_change_the_archive(both: tuple[list[newc.Entry], list[newc.Entry]]) -> None:
    ordered, shuffled = both
    assert newc.pack(newc.with_parents(ordered)) == newc.pack(newc.with_parents(shuffled))


@given(st.lists(ENTRY, max_size=8))
def test_every_parent_comes_before_its_content(entries: list[newc.Entry]) -> None:
    seen: set[bytes] = set()
    for entry in newc.with_parents(entries):
        parent = entry.path.rpartition(b"/")[0]
        assert not parent or parent in seen
        assert entry.path not in seen
        seen.add(entry.path)


def test_the_later_of_two_entries_of_one_path_is_kept() -> None:
    twice = [newc.file("etc/motd", b"old"), newc.file("etc/motd", b"new")]
    assert [one.data for one in newc.with_parents(twice) if one.path == b"etc/motd"] == [b"new"]


@pytest.mark.parametrize("path", [b"", b"/etc", b"a/../b", b"./a", b"a//b", b"a/", b"a\0b", b"TRAILER!!!", b"a" * 5000])
def test_a_path_the_kernel_would_misread_is_refused(path: bytes) -> None:
    with pytest.raises(InvalidError):
        newc.pack([newc.Entry(path, stat.S_IFREG | 0o644)])


@pytest.mark.root
def test_cpio_unpacks_the_same(tmp_path: Path) -> None:
    raw = newc.pack(newc.with_parents(MIXED))
    done = subprocess.run(["cpio", "-idm", "--quiet"], input=raw, cwd=tmp_path, capture_output=True, check=True)
    assert done.stderr == b""
    assert (tmp_path / "etc/cloner/ca.pem").read_bytes() == b"pem"
    assert os.readlink(tmp_path / "bin") == "usr/bin"
    assert (tmp_path / "init").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "init").stat().st_mtime == 0
    console = (tmp_path / "dev/console").stat()
    assert stat.S_ISCHR(console.st_mode)
    assert (os.major(console.st_rdev), os.minor(console.st_rdev)) == (5, 1)
