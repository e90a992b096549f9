"""One pack onto the target: every entry of its placement checked against the tree, then written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from blake3 import blake3

from cloner_agent.flushing import start_writing
from cloner_agent.restore.errors import failed
from cloner_agent.restore.metadata import AT_CREATION, finish, set_flags
from cloner_agent.restore.table import InodeTable
from cloner_agent.rooted import Rooted
from cloner_core.errors import IntegrityError
from cloner_core.image.digest import Bytes
from cloner_core.image.inode import Inode, Kind
from cloner_core.image.limits import DIGEST_BYTES
from cloner_core.image.pack import PackDecoder
from cloner_core.image.packmap import PackRef
from cloner_core.image.placement import Entry, decode_placement

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_ESP_MODE = 0o644

Piece = tuple[int, memoryview]  # offset in the file, bytes


@dataclass(frozen=True, slots=True)
class Placed:
    """What one pack gave."""

    finished: int  # files complete, metadata and all
    data_bytes: int
    partial: tuple[tuple[int, int], ...]  # (inode, chunks written) of files that need other packs too


class Placer:
    """Writes packs to one target. Packs may come in any order, and one may come twice."""

    def __init__(self, rooted: Rooted, table: InodeTable, version: bytes) -> None:
        """Take the target, the tree and the digest of the version."""
        self._rooted = rooted
        self._table = table
        self._version = version
        self._decoder = PackDecoder()

    def place(self, pack: PackRef, stored: Bytes, placement: Bytes) -> tuple[Placed, list[int]]:
        """Write a pack where its placement says; return what it gave and the numbers of the files it completed.

        Raises IntegrityError when pack or placement are not what the tree says, before the file in question is
        touched, and RestoreError when the target fails.
        """
        raw = memoryview(self._decoder.decode(stored, pack.digest, pack.raw_size))
        entries = decode_placement(placement, self._version, pack.digest, pack.raw_size)
        partial: list[tuple[int, int]] = []
        finished: list[int] = []
        written = 0
        for number, group in groupby(entries, key=itemgetter(0)):
            inode = self._file(number)
            pieces = self._pieces(inode, list(group), raw)
            written += sum(len(piece) for _, piece in pieces)
            if len(pieces) * DIGEST_BYTES == len(inode.chunks):
                write_file(self._rooted, inode, pieces, is_on_esp=self._table.is_on_esp(inode.path))
                finished.append(number)
            else:
                self._write_part(inode, pieces)
                partial.append((number, len(pieces)))
        return Placed(len(finished), written, tuple(partial)), finished

    def _file(self, number: int) -> Inode:
        try:
            inode = self._table.inode(number)
        except IndexError:
            raise IntegrityError(f"a placement names inode {number} of {self._table.count}") from None
        if inode.kind is not Kind.FILE:
            raise IntegrityError(f"a placement names inode {number}, which is no regular file")
        return inode

    def _pieces(self, inode: Inode, entries: list[Entry], raw: memoryview) -> list[Piece]:
        """Return the bytes for each entry, each proven to be the chunk of the tree that begins there."""
        pieces: list[Piece] = []
        chunks = inode.chunks
        spans = inode.spans() if len(chunks) > DIGEST_BYTES or inode.holes else None
        for _, offset, start, length in entries:
            if spans is None:
                index, wanted = (0, inode.size) if offset == 0 else (-1, 0)
            else:
                index, wanted = spans.find(offset)
            piece = raw[start : start + length]
            name = chunks[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]
            if index < 0 or length != wanted or blake3(piece).digest() != name:
                raise IntegrityError(
                    f"a placement puts {length} bytes at {offset} of {inode.path!r} that the tree has not there"
                )
            pieces.append((offset, piece))
        return pieces

    def _write_part(self, inode: Inode, pieces: list[Piece]) -> None:
        try:
            parent, name = self._rooted.entry(inode.path)
            fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
            try:
                if inode.flags & AT_CREATION and not os.fstat(fd).st_size:
                    set_flags(fd, inode.flags, AT_CREATION, inode.path)
                for offset, piece in pieces:
                    write_at(fd, piece, offset)
            finally:
                os.close(fd)
        except OSError as error:
            raise failed("write", inode.path, error) from error


def write_file(rooted: Rooted, inode: Inode, pieces: Sequence[Piece], *, is_on_esp: bool) -> None:
    """Make a regular file with all that it has: `pieces` are its data. Raises RestoreError when the target fails."""
    try:
        fd = create_file(rooted, inode.path, is_on_esp=is_on_esp)
        try:
            if inode.flags & AT_CREATION:
                set_flags(fd, inode.flags, AT_CREATION, inode.path)
            for offset, piece in pieces:
                write_at(fd, piece, offset)
            if inode.holes:
                os.ftruncate(fd, inode.size)
            if not is_on_esp:
                finish(fd, inode)
        finally:
            os.close(fd)
    except OSError as error:
        raise failed("write", inode.path, error) from error


def create_file(rooted: Rooted, path: bytes, *, is_on_esp: bool = False) -> int:
    """Make the regular file `path` and return its descriptor; one from an earlier try is replaced."""
    parent, name = rooted.entry(path)
    mode = _ESP_MODE if is_on_esp else 0o600
    try:
        return os.open(name, _CREATE | os.O_EXCL, mode, dir_fd=parent)
    except FileExistsError:
        os.unlink(name, dir_fd=parent)
        return os.open(name, _CREATE | os.O_EXCL, mode, dir_fd=parent)


def write_at(fd: int, data: memoryview, offset: int) -> None:
    """Write all of `data` at `offset`, and have it on its way to the disk; pwrite(2) may take less at a time."""
    start, length = offset, len(data)
    while data:
        written = os.pwrite(fd, data, offset)
        data = data[written:]
        offset += written
    start_writing(fd, start, length)  # small files too: a fifth of an image, for which the end would wait (adr/0232)
