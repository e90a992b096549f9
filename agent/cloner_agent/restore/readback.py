"""The read-back: every inode of the target against the tree, from the disk and not from memory."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import msgspec
from blake3 import blake3

from cloner_agent.restore.errors import failed
from cloner_agent.restore.finishing import is_fat_directory
from cloner_agent.restore.metadata import get_flags
from cloner_agent.restore.table import SpilledTree
from cloner_agent.restore.workers import Work, run, usual_workers
from cloner_agent.rooted import Rooted
from cloner_core.errors import IntegrityError
from cloner_core.image.inode import FLAGS_REQUIRED, XATTRS_OF_FILESYSTEM, Inode, Kind
from cloner_core.image.limits import DIGEST_BYTES
from cloner_core.image.spans import decode_holes

Range = tuple[int, int]  # numbers from the first up to, not including, the second

_RANGE_INODES = 2048
_LOST_AND_FOUND = b"lost+found"
_TYPES = {
    Kind.FILE: stat.S_IFREG,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.CHARACTER: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
    Kind.FIFO: stat.S_IFIFO,
}
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class ReadBackProgress:
    """How far a read-back is."""

    inodes: int
    inodes_total: int
    data_bytes: int


def _ignore(_: ReadBackProgress) -> None:
    pass


def read_back(
    target: Path,
    spilled: SpilledTree,
    *,
    workers: int | None = None,
    skip: Collection[bytes] = (),
    extra: Collection[bytes] = (),
    progress: Callable[[ReadBackProgress], None] = _ignore,
) -> int:
    """Compare every inode beneath `target` with the tree and return the bytes read.

    Paths in `skip` may differ in content and metadata (a file rewritten on purpose), paths in `extra` may exist
    beyond the tree. Cached pages of each file are dropped first; what is not yet on the disk stays cached, so sync
    before. Raises IntegrityError at the first difference, RestoreError when the disk cannot be read.
    """
    work = CompareRange(target, spilled, frozenset(skip), frozenset(extra))
    inodes = data = 0
    for (first, end), read in run(work, _ranges(spilled.table.count), workers or usual_workers()):
        inodes += end - first
        data += read
        progress(ReadBackProgress(inodes, spilled.table.count, data))
    return data


def _ranges(count: int) -> list[Range]:
    """Return the numbers 1 to `count`, cut into tasks."""
    return [(first, min(first + _RANGE_INODES, count + 1)) for first in range(1, count + 1, _RANGE_INODES)]


def beyond(spilled: SpilledTree, mounts: Collection[bytes]) -> frozenset[bytes]:
    """Return which folders on the way to `mounts` the tree does not have: mounting made them; `extra` takes them."""
    parts = (mount.split(b"/") for mount in mounts if mount)
    wanted = {b"/".join(each[:count]) for each in parts for count in range(1, len(each) + 1)}
    for number in spilled.directories():
        if not wanted:
            break
        wanted.discard(spilled.table.inode(number).path)
    return frozenset(wanted)


class CompareRange(Work[Range, None, int]):
    """Compares the inodes of a range; gives the bytes read."""

    def __init__(self, target: Path, spilled: SpilledTree, skip: frozenset[bytes], extra: frozenset[bytes]) -> None:
        """Take the target, the tree, the paths that may differ and those that may be there beyond the tree."""
        self._target = target
        self._spilled = spilled
        self._skip = skip
        self._extra_of: dict[bytes, set[bytes]] = {}
        for path in extra:
            parent, _, name = path.rpartition(b"/")
            self._extra_of.setdefault(parent, set()).add(name)
        self._rooted: Rooted

    def start(self) -> None:
        """Have descriptors of its own."""
        self._rooted = Rooted(self._target)

    def prepare(self, task: Range) -> None:
        """Nothing waits here."""

    def perform(self, task: Range, prepared: None) -> int:
        """Compare; raises IntegrityError, RestoreError."""
        read = 0
        for inode in self._spilled.table.range(*task):
            try:
                read += self._compare(inode)
            except OSError as error:
                if isinstance(error, FileNotFoundError):
                    raise _differs(inode, "it is missing") from None
                raise failed("read back", inode.path, error) from error
        return read

    def _compare(self, inode: Inode) -> int:
        if inode.path in self._skip:
            return 0
        if inode.kind is Kind.DIRECTORY:
            self._compare_directory(inode)
            return 0
        parent, name = self._rooted.entry(inode.path)
        if inode.kind is Kind.LINK:
            return self._compare_link(inode, parent, name)
        if inode.kind is Kind.FILE:
            fd = os.open(name, _OPEN, dir_fd=parent)
            try:
                if not self._spilled.table.is_on_esp(inode.path):
                    _compare_status(inode, os.fstat(fd))
                    _compare_attributes(inode, fd)
                return _compare_content(inode, fd)
            finally:
                os.close(fd)
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        _compare_status(inode, status)
        if inode.kind is Kind.SYMLINK and os.fsencode(os.readlink(name, dir_fd=parent)) != inode.target:
            raise _differs(inode, "it says something else")
        if inode.device != (os.major(status.st_rdev), os.minor(status.st_rdev)):
            raise _differs(inode, f"device number {inode.device} wanted")
        _compare_xattrs(inode, b"/proc/self/fd/%d/%s" % (parent, name))
        return 0

    def _compare_directory(self, inode: Inode) -> None:
        fd = self._rooted.directory(inode.path)
        table = self._spilled.table
        is_plain = not table.is_on_esp(inode.path)
        if is_plain and not (table.is_esp_mount(inode.path) and is_fat_directory(self._rooted, fd)):
            _compare_status(inode, os.fstat(fd))
            _compare_attributes(inode, fd)
        names = {os.fsencode(name) for name in os.listdir(fd)} - self._extra_of.get(inode.path, set())
        wanted = self._spilled.child_counts[inode.number]
        if len(names) == wanted + 1 and self._is_top(inode.path, fd):
            names.discard(_LOST_AND_FOUND)  # mkfs made it; one that the image has counts as any other entry
        if len(names) != wanted:
            # A missing entry is told when its own record is compared; this is about those nobody asked for.
            raise _differs(inode, f"it has {len(names)} entries, {wanted} wanted")

    def _is_top(self, path: bytes, fd: int) -> bool:
        """Tell whether the open directory `path` is the top of a filesystem."""
        if not path:
            return True
        parent, _ = self._rooted.entry(path)
        return os.fstat(fd).st_dev != os.fstat(parent).st_dev

    def _compare_link(self, inode: Inode, parent: int, name: bytes) -> int:
        leader = self._spilled.table.inode(inode.leader)
        leader_parent, leader_name = self._rooted.entry(leader.path)
        if os.fstat(parent).st_dev != os.fstat(leader_parent).st_dev:
            # The layout has its names on two filesystems, so it is a file of its own.
            return self._compare(msgspec.structs.replace(leader, path=inode.path))
        seen = os.stat(name, dir_fd=parent, follow_symlinks=False)
        wanted = os.stat(leader_name, dir_fd=leader_parent, follow_symlinks=False)
        if (seen.st_dev, seen.st_ino) != (wanted.st_dev, wanted.st_ino):
            raise _differs(inode, f"it is not the same file as /{os.fsdecode(leader.path)}")
        return 0


def _compare_status(inode: Inode, status: os.stat_result) -> None:
    if stat.S_IFMT(status.st_mode) != _TYPES[inode.kind]:
        raise _differs(inode, f"its type is {stat.filemode(status.st_mode)[0]}")
    mode = stat.S_IMODE(status.st_mode)
    seen = (mode, status.st_uid, status.st_gid, status.st_mtime_ns)
    wanted = (inode.mode, inode.uid, inode.gid, inode.mtime_ns)
    if seen != wanted:
        told = "mode {:o}, owner {}:{}, mtime {} ns"
        raise _differs(inode, f"{told.format(*seen)} seen, {told.format(*wanted)} wanted")


def _compare_attributes(inode: Inode, fd: int) -> None:
    _compare_xattrs(inode, fd)
    difference = (get_flags(fd) ^ inode.flags) & FLAGS_REQUIRED
    if difference:
        raise _differs(inode, f"its flags differ in {difference:#x}")


def _compare_xattrs(inode: Inode, target: int | bytes) -> None:
    follow = isinstance(target, int)
    names = os.listxattr(target, follow_symlinks=follow)
    if not names and not inode.xattrs:
        return
    seen = sorted(
        (os.fsencode(name), os.getxattr(target, name, follow_symlinks=follow))
        for name in names
        if os.fsencode(name) not in XATTRS_OF_FILESYSTEM
    )
    if seen != list(inode.xattrs):
        differing = sorted({name for name, _ in set(seen) ^ set(inode.xattrs)})
        raise _differs(inode, f"its extended attributes differ in {differing}")


def _compare_content(inode: Inode, fd: int) -> int:
    size = os.fstat(fd).st_size
    if size != inode.size:
        raise _differs(inode, f"{size} bytes seen, {inode.size} wanted")
    if not size:
        return 0
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    spans = ((0, size),) if len(inode.chunks) == DIGEST_BYTES and not inode.holes else inode.spans()
    read = at = 0
    for offset, length in spans:
        data = _read(fd, length, offset)
        if blake3(data).digest() != inode.chunks[at : at + DIGEST_BYTES]:
            raise _differs(inode, f"the {length} bytes at offset {offset} have another digest")
        at += DIGEST_BYTES
        read += length
    if inode.holes:
        _compare_holes(inode, fd)
    return read


def _read(fd: int, length: int, offset: int) -> bytes:
    """Read a span to its end: of a disk that fails in the middle come the bytes before that, then its error."""
    data = os.pread(fd, length, offset)
    while len(data) < length and (more := os.pread(fd, length - len(data), offset + len(data))):
        data += more
    return data


def _compare_holes(inode: Inode, fd: int) -> None:
    """Raise IntegrityError unless the holes read as zeros; the target may have allocated bigger blocks there."""
    for offset, length in decode_holes(inode.holes, inode.size):
        position, end = offset, offset + length
        while position < end:
            try:
                position = os.lseek(fd, position, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:  # no data up to the end of the file
                    raise
                break
            if position >= end:
                break
            data = _read(fd, min(end - position, 1 << 20), position)
            if data.strip(b"\0"):
                raise _differs(inode, f"there is data at offset {position}, in a hole")
            position += len(data)


def _differs(inode: Inode, why: str) -> IntegrityError:
    return IntegrityError(
        f"the read-back of /{os.fsdecode(inode.path)} differs from the image: {why}",
        hint="the disk or its controller changed what was written: look at its SMART values and the kernel's log",
    )
