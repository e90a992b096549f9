"""The capture index: what each file held at the last capture on this machine, so that an update reads what changed.

Private to the machine, no part of an image: losing it costs time alone. It lies in the order of the walk, so both go
side by side and little of it is in memory. A file is unchanged when path, device, inode number, size, mtime and ctime
are what they were: nobody can set ctime. But clocks are coarse, and memory that a program has mapped is written without
a word until the kernel puts it on the disk. So files changed less than two seconds before a capture began are not in
its index, and filesystems are synced before the walk; the next write through a mapping then gives a new ctime.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec
from blake3 import blake3
from msgspec import Meta

from cloner_agent.capture.binding import Binding, decode_binding, difference, encode_binding
from cloner_agent.capture.content import Content
from cloner_agent.capture.formertree import FormerTree, open_reader, open_writer
from cloner_agent.capture.keeping import (
    BUFFER_BYTES,
    UnusableError,
    create_beside,
    open_own,
    put_in_place,
    walk_key,
)
from cloner_core.decoding import UNREADABLE
from cloner_core.image.limits import DIGEST_BYTES, MAX_RECORD_BYTES
from cloner_core.image.spans import Spans

MARGIN_NS = 2_000_000_000
_MAGIC = b"cloner capture index\n"
_LENGTH = struct.Struct("<I")

Say = Callable[[str], None]


class _Entry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    path: bytes
    state: tuple[int, int, int, int, int]  # see _state
    holes: bytes
    chunks: Annotated[bytes, Meta(min_length=DIGEST_BYTES)]


_encode = msgspec.msgpack.Encoder().encode
_decode_entry = msgspec.msgpack.Decoder(_Entry).decode


class CaptureIndex:
    """The former index, read beside the walk, and the next one, written by it; either may be missing."""

    def __init__(
        self,
        former: _Reader | None = None,
        following: _Writer | None = None,
        tree: FormerTree | None = None,
        *,
        started_ns: int = 0,
        say: Say = lambda _: None,
    ) -> None:
        """Take both, the former tree, when this capture began, and whom to tell of trouble, which never ends it."""
        self._former = former
        self._following = following
        self.tree = tree or FormerTree()
        self._newest_ns = started_ns - MARGIN_NS
        self._say = say

    def recall(self, path: bytes, status: os.stat_result, is_known: Callable[[bytes], bool]) -> Content | None:
        """Return the content of a file that is as it was, None where it is to be read.

        To be called in the order of the walk. `is_known` tells whether the server has a chunk: what it let go since
        is read and sent again.
        """
        entry = self._former.find(path) if self._former else None
        if entry is None or entry.state != _state(status):
            return None
        chunks = entry.chunks
        if not all(is_known(chunks[at : at + DIGEST_BYTES]) for at in range(0, len(chunks), DIGEST_BYTES)):
            return None
        size = status.st_size
        data_bytes = Spans(size, entry.holes).data_bytes if entry.holes else size
        return Content(status, size, entry.holes, chunks, data_bytes)

    def note(self, path: bytes, content: Content) -> None:
        """Have the next index know a file, unless it may have changed while nobody could tell."""
        if self._following is None or not content.chunks or not content.is_exact:
            return
        if content.status.st_ctime_ns >= self._newest_ns:
            return
        try:
            self._following.add(_Entry(path, _state(content.status), content.holes, content.chunks))
        except OSError as error:
            self._give_up(error)

    def keep(self) -> None:
        """Put the next index in the place of the former one: what it names is published."""
        if self._following is None:
            return
        try:
            self._following.finish()
            self.tree.keep()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._following = None
        self._say(f"no capture index is kept: {error}")


@contextmanager
def open_index(
    directory: Path | None, bind: Callable[[], Binding], *, started_ns: int, is_rehash: bool = False, say: Say
) -> Iterator[CaptureIndex]:
    """Give the index that `directory` has of what `bind` returns; with None, or in trouble, one that knows nothing.

    `bind` is called after `started_ns` was read; see binding.bind_index. With `is_rehash` the former index is not
    read. One capture of a machine at a time has an index. What was not kept at the end is gone.
    """
    if directory is None:
        yield CaptureIndex()
        return
    with ExitStack() as opened:
        former = following = tree = None
        try:
            binding = bind()
            path = directory / f"{binding.image}.index"
            following = _open_writer(path, binding, opened)
            tree = _open_tree(directory / f"{binding.image}.tree", opened)
            former = None if is_rehash else _open_reader(path, binding, opened)
        except FileNotFoundError as error:
            if following is None:
                say(f"no capture index is used, every file is read: {error}")
        except UnusableError as why:
            say(f"the capture index {path} is not used, every file is read: {why}")
        except BlockingIOError:
            say("no capture index is used, every file is read: another capture on this machine has it")
        except OSError as error:
            say(f"no capture index is used, every file is read: {error}")
        yield CaptureIndex(former, following, tree, started_ns=started_ns, say=say)


@contextmanager
def peek_index(directory: Path | None, bind: Callable[[], Binding]) -> Iterator[CaptureIndex]:
    """Give the index that `directory` has of what `bind` returns, to look things up; one that knows nothing if none."""
    with ExitStack() as opened:
        former = None
        if directory is not None:
            with suppress(OSError, UnusableError):  # the capture that follows says why
                binding = bind()
                former = _open_reader(directory / f"{binding.image}.index", binding, opened)
        yield CaptureIndex(former)


def _state(status: os.stat_result) -> tuple[int, int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class _Reader:
    """A whole and fitting index, read from its start to its end once."""

    def __init__(self, file: BinaryIO, end: int) -> None:
        self._file = file
        self._end = end
        self._entry: _Entry | None = None
        self._entry_key = b""
        self._advance()

    def find(self, path: bytes) -> _Entry | None:
        key = walk_key(path)
        while self._entry is not None and self._entry_key < key:
            self._advance()
        return self._entry if self._entry_key == key else None

    def _advance(self) -> None:
        try:
            self._entry = _decode_entry(_read_framed(self._file)) if self._file.tell() < self._end else None
        except (OSError, *UNREADABLE, UnusableError):
            self._entry = None  # its digest was right a moment ago: the disk fails, and files are read instead
        self._entry_key = walk_key(self._entry.path) if self._entry else b""


class _Writer:
    """The next index, beside the former one until it is whole."""

    def __init__(self, path: Path, file: BinaryIO, binding: Binding) -> None:
        self._path = path
        self._file = file
        self._digest = blake3()
        self._write(_MAGIC)
        self._write_framed(encode_binding(binding))

    def add(self, entry: _Entry) -> None:
        self._write_framed(_encode(entry))

    def finish(self) -> None:
        self._file.write(self._digest.digest())
        put_in_place(self._path, self._file)

    def _write_framed(self, data: bytes) -> None:
        self._write(_LENGTH.pack(len(data)) + data)

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        self._file.write(data)


def _open_writer(path: Path, binding: Binding, opened: ExitStack) -> _Writer:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    opened.callback(os.close, folder)
    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return _Writer(path, create_beside(path, opened), binding)


def _open_tree(path: Path, opened: ExitStack) -> FormerTree:
    """Return the former tree; one that cannot be used costs bytes on the wire alone, so nothing is said of it."""
    former = following = None
    with suppress(UnusableError, OSError):
        former = open_reader(path, opened)
    with suppress(OSError):
        following = open_writer(path, opened)
    return FormerTree(former, following)


def _open_reader(path: Path, binding: Binding, opened: ExitStack) -> _Reader:
    file, size = open_own(path, opened)
    end = size - DIGEST_BYTES
    if end < len(_MAGIC) or file.read(len(_MAGIC)) != _MAGIC:
        raise UnusableError("it is none")
    file.seek(0)
    digest, left = blake3(), end
    while left and (data := file.read(min(left, BUFFER_BYTES))):
        digest.update(data)
        left -= len(data)
    if file.read(DIGEST_BYTES) != digest.digest():
        raise UnusableError("it is damaged")
    file.seek(len(_MAGIC))
    try:
        seen = decode_binding(_read_framed(file))
    except UNREADABLE:
        raise UnusableError("it is of another version of this program") from None
    if seen != binding:
        raise UnusableError(f"it is of another {difference(seen, binding)}")
    return _Reader(file, end)


def _read_framed(file: BinaryIO) -> bytes:
    length = file.read(_LENGTH.size)
    size = _LENGTH.unpack(length)[0] if len(length) == _LENGTH.size else MAX_RECORD_BYTES + 1
    data = file.read(size) if size <= MAX_RECORD_BYTES else b""
    if len(data) != size:
        raise UnusableError("it is cut short")
    return data
