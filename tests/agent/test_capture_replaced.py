"""What becomes something else between the listing of its directory and its visit is captured as what it is now."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Generic, TypeVar

import pytest

from cloner_agent.capture.index import CaptureIndex
from cloner_agent.capture.metadata import MetadataReader
from cloner_agent.capture.records import Notes, RecordMaker, ReplacedError
from cloner_agent.capture.source import Source, opened
from cloner_agent.capture.survey import Weigher
from cloner_agent.capture.walk import Maker, Walker
from cloner_core.image.digest import digest
from cloner_core.image.inode import Inode, Kind
from cloner_core.image.linting.linter import SecretsError

KEY = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqG\n"
KINDS = {
    "file": Kind.FILE,
    "directory": Kind.DIRECTORY,
    "link": Kind.SYMLINK,
    "fifo": Kind.FIFO,
    "socket": None,  # never captured
}

PAIRS = tuple(permutations(KINDS, 2))


def put(path: Path, kind: str, text: str = "content") -> None:
    """Make what `kind` says in place of whatever is at `path`."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    match kind:
        case "file":
            path.write_text(text)
        case "directory":
            path.mkdir()
            (path / "inside").write_text(text)
        case "link":
            path.symlink_to("nowhere")
        case "fifo":
            os.mkfifo(path)
        case "socket":
            os.mknod(path, stat.S_IFSOCK | 0o600)


class Keeper:
    """Keeps nothing."""

    buffer = memoryview(bytearray(1 << 20))

    def room(self, length: int) -> memoryview:
        return self.buffer[:length]

    def keep(self, length: int) -> bytes:
        return digest(self.buffer[:length])

    def knows(self, name: bytes) -> bool:
        return False


T = TypeVar("T")


class Replacing(Generic[T]):
    """A maker that has something replaced when it is given the file `before`."""

    def __init__(self, maker: Maker[T], replace: Callable[[], None]) -> None:
        self.maker = maker
        self.replace = replace

    def directory(self, fd: int, path: bytes) -> T:
        return self.maker.directory(fd, path)

    def file(self, fd: int, path: bytes, *, is_emptied: bool) -> tuple[T, int]:
        if path.endswith(b"/before"):
            self.replace()
        return self.maker.file(fd, path, is_emptied=is_emptied)

    def special(self, parent_fd: int, name: bytes, path: bytes) -> T | None:
        return self.maker.special(parent_fd, name, path)


class Fickle(Replacing[T]):
    """One before whose eyes the file `entry` is something else at each visit."""

    visits = 0

    def file(self, fd: int, path: bytes, *, is_emptied: bool) -> tuple[T, int]:
        if path.endswith(b"/entry"):
            self.visits += 1
            raise ReplacedError
        return super().file(fd, path, is_emptied=is_emptied)


def record_maker(source: Source, notes: Notes) -> Maker[Inode]:
    return RecordMaker(source.boundaries, source.esp, Keeper(), CaptureIndex(), notes)


def tree_of(root: Path, replace: Callable[[], None] = lambda: None) -> tuple[dict[bytes, Kind], Notes]:
    """Return the kinds of what is captured of `root`, in which `replace` is called before `entry` is visited."""
    notes = Notes()
    with opened(root, None, (), None, allow_secrets=False) as source:
        maker = Replacing(record_maker(source, notes), replace)
        walker = Walker(source.boundaries, source.book, maker, notes, source.linter)
        return {inode.path: inode.kind for inode, _ in walker.walk(source.rooted.fd)}, notes


@pytest.fixture(params=["etc", "srv"])  # with the lint, and without
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path: Path = tmp_path / "golden" / request.param
    path.mkdir(parents=True)
    (path / "before").write_text("x")
    return path


@pytest.mark.parametrize(("listed", "now"), PAIRS)
def test_an_entry_is_captured_as_what_it_has_become(folder: Path, listed: str, now: str) -> None:
    entry = folder / "entry"
    put(entry, listed)
    tree, notes = tree_of(folder.parent, lambda: put(entry, now))
    path = f"{folder.name}/entry".encode()
    kind = KINDS[now]
    assert tree.get(path) is kind
    assert (path + b"/inside" in tree) == (kind is Kind.DIRECTORY)
    assert notes.sockets == ([] if kind else [path])
    assert notes.vanished == notes.inexact == []


@pytest.mark.parametrize(("listed", "now"), PAIRS)
def test_an_entry_is_weighed_as_what_it_has_become(folder: Path, listed: str, now: str) -> None:
    entry = folder / "entry"
    put(entry, listed)
    with opened(folder.parent, None, (), None, allow_secrets=False) as source:
        weigher = Weigher(source.boundaries, lambda path, status: False)
        maker = Replacing(weigher, lambda: put(entry, now))
        for _ in Walker(source.boundaries, source.book, maker, Notes(), source.linter).walk(source.rooted.fd):
            pass
    entries = {"directory": 2, "socket": 0}.get(now, 1)
    assert weigher.weights.entries.total() == 3 + entries  # the root, the folder, `before`
    assert weigher.weights.mounts.total() == 1 + (len("content") if now in ("file", "directory") else 0)


@pytest.mark.parametrize("listed", [kind for kind in KINDS if kind != "file"])
def test_a_secret_that_comes_in_place_of_something_else_is_found(tmp_path: Path, listed: str) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "before").write_text("x")
    put(folder / "entry", listed)
    with pytest.raises(SecretsError, match="/etc/entry"):
        tree_of(tmp_path, lambda: put(folder / "entry", "file", KEY))


def test_a_link_that_becomes_a_file_before_it_is_read_is_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = folder / "entry"
    put(entry, "link")
    readlink = os.readlink

    def replaced(path: bytes, *, dir_fd: int | None = None) -> bytes:
        if dir_fd is not None:
            put(entry, "file")
        return readlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "readlink", replaced)
    tree, _ = tree_of(folder.parent)
    assert tree[f"{folder.name}/entry".encode()] is Kind.FILE


def test_what_is_something_else_at_each_visit_is_left_out_and_told(folder: Path) -> None:
    put(folder / "entry", "file")
    put(folder / "last", "file")
    notes = Notes()
    with opened(folder.parent, None, (), None, allow_secrets=False) as source:
        maker = Fickle(record_maker(source, notes), lambda: None)
        walker = Walker(source.boundaries, source.book, maker, notes, source.linter)
        tree = {inode.path for inode, _ in walker.walk(source.rooted.fd)}
    name = folder.name.encode()
    assert tree == {b"", name, name + b"/before", name + b"/last"}
    assert (maker.visits, notes.inexact) == (3, [name + b"/entry"])


def test_an_attribute_that_is_removed_once_it_was_listed_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.touch()
    for name in ("user.a", "user.b"):
        os.setxattr(path, name, name.encode())
    listed = os.listxattr(path)
    os.removexattr(path, "user.a")
    monkeypatch.setattr(os, "listxattr", lambda *_, **__: listed)
    assert MetadataReader(lambda: None).xattrs(os.fsencode(path)) == ((b"user.b", b"user.b"),)
