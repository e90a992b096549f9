"""The laws between records: what makes a stream of inodes one tree, checked as it passes.

State: one entry for each directory on the way to the present record, and one byte for each record.
"""

from __future__ import annotations

from typing import NoReturn

import msgspec

from cloner_core.errors import IntegrityError
from cloner_core.image.inode import Inode, Kind
from cloner_core.image.limits import MAX_NAME_BYTES, SEGMENT_INODES, SEGMENT_RAW_BYTES
from cloner_core.image.tree import ROLE_ESP, Filesystem, SegmentRef, TreeRoot

_BLOCK = 4096
_KIND_MASK = 7
_FILESYSTEM_SHIFT = 3


class TreeChecker:
    """Takes the records of one tree in order and raises IntegrityError at the first that cannot belong to it."""

    def __init__(self, filesystems: tuple[Filesystem, ...]) -> None:
        """Take the filesystems of the root; their totals are counted anew, see `counted`."""
        self._filesystems = filesystems
        self._mounts = {filesystem.mount: index for index, filesystem in enumerate(filesystems)}
        self._kinds = bytearray(1)  # by number: kind in three bits, index of the filesystem above them
        self._paths: list[bytes] = []  # directories on the way to the last record
        self._numbers: list[int] = []
        self._last_names: list[bytes] = []
        self._indexes: list[int] = []  # the filesystem of each
        self._inodes = [0] * len(filesystems)
        self._data = [0] * len(filesystems)
        self._allocated = [0] * len(filesystems)

    @property
    def count(self) -> int:
        """The number of records taken so far."""
        return len(self._kinds) - 1

    def add(self, inode: Inode) -> int:
        """Take the next record and return the number of the directory it is in (0 for the root itself)."""
        kind, path = inode.kind, inode.path
        if inode.number != len(self._kinds):
            _refuse(inode, f"record {len(self._kinds)} wanted")
        if inode.number == 1:
            if path or kind is not Kind.DIRECTORY:
                _refuse(inode, "the first record is the root directory")
            parent = index = 0
        else:
            parent, index = self._place(inode)
        if kind is Kind.DIRECTORY:
            index = self._mounts.get(path, index) if path else 0
            self._paths.append(path)
            self._numbers.append(inode.number)
            self._last_names.append(b"")
            self._indexes.append(index)
        elif kind is Kind.LINK:
            self._check_leader(inode, index)
        if self._filesystems[index].role == ROLE_ESP and path not in self._mounts:
            _check_esp(inode)
        self._kinds.append(kind | index << _FILESYSTEM_SHIFT)
        self._count(inode, index)
        return parent

    def _place(self, inode: Inode) -> tuple[int, int]:
        path = inode.path
        if not path:
            _refuse(inode, "only the first record is the root directory")
        parent, _, name = path.rpartition(b"/")
        if name in (b"", b".", b"..") or len(name) > MAX_NAME_BYTES:
            _refuse(inode, "not a name an entry can have")
        while self._paths[-1] != parent:
            self._paths.pop()
            self._numbers.pop()
            self._last_names.pop()
            self._indexes.pop()
            if not self._paths:
                _refuse(inode, "its parent is not a directory before it, or the records are not in order")
        if name <= self._last_names[-1]:
            _refuse(inode, f"it comes after {self._last_names[-1]!r}: not in order")
        self._last_names[-1] = name
        return self._numbers[-1], self._indexes[-1]

    def _check_leader(self, inode: Inode, index: int) -> None:
        leader = self._kinds[inode.leader] if inode.leader < inode.number else 0
        if leader & _KIND_MASK in (0, Kind.DIRECTORY, Kind.LINK) or leader >> _FILESYSTEM_SHIFT != index:
            _refuse(inode, f"its leader {inode.leader} is no earlier inode of its filesystem that can have two names")

    def _count(self, inode: Inode, index: int) -> None:
        self._inodes[index] += 1
        if inode.kind is Kind.DIRECTORY:
            self._allocated[index] += _BLOCK
        elif inode.size:
            data = inode.spans().data_bytes if inode.holes else inode.size
            self._data[index] += data
            self._allocated[index] += -(-data // _BLOCK) * _BLOCK

    def counted(self) -> tuple[Filesystem, ...]:
        """Return the filesystems with the totals of the records taken."""
        return tuple(
            msgspec.structs.replace(filesystem, inodes=inodes, data_bytes=data, allocated_bytes=allocated)
            for filesystem, inodes, data, allocated in zip(
                self._filesystems, self._inodes, self._data, self._allocated, strict=True
            )
        )

    def finish(self, root: TreeRoot) -> None:
        """Raise IntegrityError unless the records taken are all that `root` names and count what it says."""
        if self.count != root.inodes or self.counted() != root.filesystems:
            raise IntegrityError(f"the tree has {self.count} records and other totals than its root says")


def check_cut(before: SegmentRef, first_record_bytes: int) -> None:
    """Raise IntegrityError when the segment `before` could have held the next record too: a tree is cut in one way."""
    if before.count < SEGMENT_INODES and before.raw_size + first_record_bytes <= SEGMENT_RAW_BYTES:
        raise IntegrityError(f"segment {before.digest.hex()} ends early: the tree is not cut in its canonical way")


def _check_esp(inode: Inode) -> None:
    if inode.kind not in (Kind.FILE, Kind.DIRECTORY):
        _refuse(inode, "the ESP holds files and directories only")
    plain = Inode(inode.number, inode.kind, inode.path, size=inode.size, chunks=inode.chunks)
    if inode != plain:
        _refuse(inode, "on the ESP a record has a path and bytes only")


def _refuse(inode: Inode, why: str) -> NoReturn:
    raise IntegrityError(f"record {inode.number} of the tree, {inode.kind.name.lower()} {inode.path!r}: {why}")
