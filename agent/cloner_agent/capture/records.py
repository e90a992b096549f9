"""One entry of the source to one record of the tree."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from typing import Protocol

from cloner_agent.capture.content import ChunkKeeper, Content, read_content
from cloner_agent.capture.holes import HoleFinder
from cloner_agent.capture.index import CaptureIndex
from cloner_agent.capture.metadata import MetadataReader, Xattrs
from cloner_agent.capture.mounts import Boundaries
from cloner_core.errors import ClonerError, IntegrityError
from cloner_core.image.inode import SYMLINK_MODE, Inode, Kind

_SPECIAL = {stat.S_IFCHR: Kind.CHARACTER, stat.S_IFBLK: Kind.BLOCK, stat.S_IFIFO: Kind.FIFO}

Record = tuple[Inode, int]  # the inode and its bytes that are not holes


class CaptureError(ClonerError):
    """A path of the source could not be read; no version is made."""


class ReplacedError(Exception):
    """An entry is not what its directory listed. Caught by the walker, which visits it as what it is now."""


@dataclass(slots=True)
class Notes:
    """What a capture did not take as it was, beside what the lint tells; shown to the person who asked for it."""

    inexact: list[bytes] = field(default_factory=list)  # changed, or were replaced, at each of three readings
    vanished: list[bytes] = field(default_factory=list)
    sockets: list[bytes] = field(default_factory=list)
    mount_points: list[bytes] = field(default_factory=list)  # of filesystems that are not captured
    snapshots: list[bytes] = field(default_factory=list)  # read-only ones of btrfs: not captured
    dropped_evm: int = 0
    index: list[str] = field(default_factory=list)  # why the capture index was not used, or is not kept
    recalled: int = 0  # files that were not read: they are as the index has them


class KnowingKeeper(ChunkKeeper, Protocol):
    """Keeps chunks, and knows which ones are kept; see packing.PackStream."""

    def knows(self, name: bytes) -> bool:
        """Tell whether the chunk of this digest is kept already."""


def require_file(status: os.stat_result) -> None:
    """Raise ReplacedError unless this is a regular file."""
    if not stat.S_ISREG(status.st_mode):
        raise ReplacedError


def require_special(status: os.stat_result) -> None:
    """Raise ReplacedError when this is a regular file or a directory."""
    if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
        raise ReplacedError


def _target(parent_fd: int, name: bytes) -> bytes:
    try:
        return os.fsencode(os.readlink(name, dir_fd=parent_fd))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise ReplacedError from error  # it is no link any more


class RecordMaker:
    """Makes the records of one tree; numbers them and remembers hard-linked inodes."""

    def __init__(
        self, boundaries: Boundaries, esp: bytes | None, keeper: KnowingKeeper, index: CaptureIndex, notes: Notes
    ) -> None:
        """Take where filesystems end, the ESP's directory, what keeps chunks, the index, and where to note oddities."""
        fat = [path for path, kind in boundaries.crossed.items() if kind == "vfat"]
        self._fat_tops = frozenset(fat)
        self._esp_prefixes = tuple(path + b"/" for path in (*fat, *((esp,) if esp else ())))
        self._keeper = keeper
        self._index = index
        self._notes = notes
        self._metadata = MetadataReader(self._count_evm)
        self._holes = HoleFinder()
        self._number = 0
        self._leaders: dict[tuple[int, int], int] = {}

    def _count_evm(self) -> None:
        self._notes.dropped_evm += 1

    def _is_on_esp(self, path: bytes) -> bool:
        return bool(self._esp_prefixes) and path.startswith(self._esp_prefixes)

    def _next(self) -> int:
        self._number += 1
        return self._number

    def directory(self, fd: int, path: bytes) -> Inode:
        """Return the record of an open directory."""
        if self._is_on_esp(path):
            return Inode(self._next(), Kind.DIRECTORY, path)
        if path in self._fat_tops:
            # Owner, mode and times of a mounted FAT's root are those of the mount, not of the machine.
            return Inode(self._next(), Kind.DIRECTORY, path, 0o755)
        status = os.fstat(fd)
        flags = self._metadata.flags(fd, status.st_dev)
        return self._inode(Kind.DIRECTORY, path, status, self._metadata.xattrs(fd), flags=flags)

    def file(self, fd: int, path: bytes, *, is_emptied: bool) -> Record:
        """Return the record of an open regular file, its chunks kept; with `is_emptied` it is recorded without any."""
        status = os.fstat(fd)
        require_file(status)
        if self._is_on_esp(path):
            content = read_content(fd, status, self._keeper, None)
            self._note(path, content)
            inode = Inode(self._next(), Kind.FILE, path, size=content.size, chunks=content.chunks)
            return inode, content.data_bytes
        link = self._link(path, status)
        if link is not None:
            return link, 0
        content = Content(status, 0) if is_emptied or not status.st_size else self._content(fd, path, status)
        xattrs, flags = self._metadata.xattrs(fd), self._metadata.flags(fd, status.st_dev)
        return self._inode(Kind.FILE, path, content.status, xattrs, flags=flags, content=content), content.data_bytes

    def _content(self, fd: int, path: bytes, status: os.stat_result) -> Content:
        content = self._index.recall(path, status, self._keeper.knows)
        if content is None:
            try:
                content = read_content(fd, status, self._keeper, self._holes)
            except IntegrityError as error:  # more holes or chunks than a record has room for
                name = f"/{os.fsdecode(path)}"
                raise CaptureError(
                    f"{name} cannot be in an image: {error.message}", hint=f"--exclude-paths {name} leaves it out"
                ) from error
            self._note(path, content)
        else:
            self._notes.recalled += 1
        self._index.note(path, content)
        return content

    def _note(self, path: bytes, content: Content) -> None:
        if not content.is_exact:
            self._notes.inexact.append(path)

    def special(self, parent_fd: int, name: bytes, path: bytes) -> Inode | None:
        """Return the record of a link, device or fifo, or None for a socket, which is never part of an image."""
        status = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
        require_special(status)
        if self._is_on_esp(path):
            raise CaptureError(f"/{os.fsdecode(path)} is on the ESP, which holds files and directories only")
        link = self._link(path, status)
        if link is not None:
            return link
        kind = _SPECIAL.get(stat.S_IFMT(status.st_mode))
        if kind is None and not stat.S_ISLNK(status.st_mode):
            self._notes.sockets.append(path)
            return None
        # No descriptor can be had of a link or device without opening it, so its attributes go by path.
        xattrs = self._metadata.xattrs(b"/proc/self/fd/%d/%s" % (parent_fd, name))
        if kind is not None:
            return self._inode(kind, path, status, xattrs)
        return self._inode(Kind.SYMLINK, path, status, xattrs, target=_target(parent_fd, name))

    def _link(self, path: bytes, status: os.stat_result) -> Inode | None:
        if status.st_nlink < 2:
            return None
        leader = self._leaders.get((status.st_dev, status.st_ino))
        return Inode(self._next(), Kind.LINK, path, leader=leader) if leader else None

    def _inode(
        self,
        kind: Kind,
        path: bytes,
        status: os.stat_result,
        xattrs: Xattrs,
        *,
        flags: int = 0,
        target: bytes = b"",
        content: Content | None = None,
    ) -> Inode:
        number = self._next()
        if status.st_nlink > 1 and kind is not Kind.DIRECTORY:
            self._leaders[status.st_dev, status.st_ino] = number
        is_device = kind is Kind.CHARACTER or kind is Kind.BLOCK
        return Inode(
            number,
            kind,
            path,
            SYMLINK_MODE if kind is Kind.SYMLINK else stat.S_IMODE(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            content.size if content else 0,
            (os.major(status.st_rdev), os.minor(status.st_rdev)) if is_device else (0, 0),
            target,
            0,
            xattrs,
            flags,
            content.holes if content else b"",
            content.chunks if content else b"",
        )
