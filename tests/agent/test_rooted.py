"""Nothing beneath a target leads out of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloner_agent.rooted import Rooted


@pytest.fixture
def rooted(tmp_path: Path) -> Iterator[Rooted]:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("outside")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/secret").write_text("inside")
    (root / "absolute").symlink_to(tmp_path / "outside")
    (root / "climbing").symlink_to("../../outside")
    (root / "slash").symlink_to("/etc")
    with Rooted(root) as value:
        yield value


@pytest.mark.parametrize(
    "path", [b"absolute/secret", b"climbing/secret", b"../outside/secret", b"etc/../../outside/secret"]
)
def test_no_link_and_no_dots_lead_out_of_the_root(rooted: Rooted, path: bytes) -> None:
    with pytest.raises(FileNotFoundError):
        rooted.read(path)
    with pytest.raises(FileNotFoundError):
        rooted.write(path, b"overwritten")


def test_an_absolute_link_is_followed_inside_the_root(rooted: Rooted) -> None:
    assert rooted.read("/slash/secret") == b"inside"


def test_a_directory_for_restoring_is_never_reached_through_a_link(rooted: Rooted) -> None:
    with pytest.raises(OSError) as refused:
        rooted.directory(b"slash")
    assert refused.value.errno in (errno.ELOOP, errno.ENOTDIR)
    with pytest.raises(OSError):
        rooted.entry(b"slash/new")


@pytest.mark.parametrize("path", [b"", b"etc/.", b"etc/..", b".", b".."])
def test_an_entry_has_a_name_of_its_own(rooted: Rooted, path: bytes) -> None:
    with pytest.raises(OSError, match="not the name"):
        rooted.entry(path)


def test_writing_replaces_a_link_and_not_what_it_leads_to(rooted: Rooted, tmp_path: Path) -> None:
    rooted.symlink(b"/etc/secret", b"link")
    rooted.write("link", b"new", mode=0o640)
    assert rooted.read("link") == b"new"
    assert rooted.lstat("link").st_mode & 0o7777 == 0o640
    assert (tmp_path / "root/etc/secret").read_text() == "inside"
    assert sorted(os.listdir(tmp_path / "root")) == ["absolute", "climbing", "etc", "link", "slash"]


def test_cached_directories_are_closed_when_there_are_too_many(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Rooted(tmp_path, cached_directories=4) as rooted:
        for number in range(40):
            rooted.mkdir(f"a/{number}")
            rooted.directory(b"a/%d" % number)
        assert len(os.listdir("/proc/self/fd")) <= before + 5
        assert rooted.listdir("a") == sorted(b"%d" % number for number in range(40))
    assert len(os.listdir("/proc/self/fd")) == before
