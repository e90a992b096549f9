"""What a capture would take, before its content is read: filesystems, directories, weights, and what the lint finds."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec

from cloner_agent.capture.binding import bind_index
from cloner_agent.capture.content import refuse_swap_file
from cloner_agent.capture.index import peek_index
from cloner_agent.capture.mounts import Boundaries
from cloner_agent.capture.records import Notes, require_file, require_special
from cloner_agent.capture.source import Source, opened
from cloner_agent.capture.walk import Walker
from cloner_core.layout import Layout

LARGEST = 10
_NEVER_SPARSE_BYTES = 4096  # small files may lie where blocks are not counted
_BLOCK_BYTES = 512  # st_blocks, stat(2)
# Whole pages are what swap files are made of, and few others: a look into each file would be a seek for each.
_PAGE_BYTES = 4096
_TOLD_EVERY = 1024

IsKnown = Callable[[bytes, os.stat_result], bool]


class MountShare(msgspec.Struct, frozen=True):
    """A filesystem that is captured."""

    path: str  # "/", "/boot/efi"
    type: str  # "" where nothing tells it
    entries: int
    data_bytes: int


class DirectoryShare(msgspec.Struct, frozen=True):
    """What lies in a directory, told two deep: /usr/lib, /home/alice; /usr stands for what lies in it itself."""

    path: str
    data_bytes: int


class Survey(msgspec.Struct, frozen=True):
    """What a capture would take."""

    entries: int  # files, directories, links, devices
    data_bytes: int  # content of files, holes not counted, each inode once
    unknown_bytes: int  # of that what nobody remembers having sent: at most so much is new to the server
    mounts: tuple[MountShare, ...]
    closed: tuple[str, ...]  # mount points whose content is not taken
    snapshots: tuple[str, ...]  # read-only ones of btrfs, whose content is not taken
    largest: tuple[DirectoryShare, ...]  # the largest first
    unmatched_excludes: tuple[str, ...]


@dataclass
class _Weights:
    entries: Counter[bytes] = field(default_factory=Counter)  # by mount point
    mounts: Counter[bytes] = field(default_factory=Counter)
    directories: Counter[bytes] = field(default_factory=Counter)
    unknown_bytes: int = 0


class Weigher:
    """A walk.Maker that reads no content: it adds up what the files say of themselves."""

    def __init__(self, boundaries: Boundaries, is_known: IsKnown) -> None:
        """Take where filesystems end, and what tells of a file whether its content was sent already."""
        self._mounts = sorted(boundaries.crossed, key=len, reverse=True)
        self._is_known = is_known
        self._linked: set[tuple[int, int]] = set()
        self.weights = _Weights()

    def directory(self, fd: int, path: bytes) -> None:
        """Count a directory."""
        self.weights.entries[self._mount_of(path)] += 1

    def special(self, parent_fd: int, name: bytes, path: bytes) -> None:
        """Count a link, device or fifo."""
        status = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
        require_special(status)
        if not stat.S_ISSOCK(status.st_mode):
            self.weights.entries[self._mount_of(path)] += 1

    def file(self, fd: int, path: bytes, *, is_emptied: bool) -> tuple[None, int]:
        """Add up a file; one with several names counts once. Raises SwapFileError as its capture will."""
        status = os.fstat(fd)
        require_file(status)
        mount, weights = self._mount_of(path), self.weights
        key = (status.st_dev, status.st_ino)
        if is_emptied or key in self._linked:
            weights.entries[mount] += 1
            return None, 0
        size = data_bytes(status)
        is_known = not size or self._is_known(path, status)
        if not is_known and status.st_size % _PAGE_BYTES == 0:
            refuse_swap_file(fd, status.st_size)
        if status.st_nlink > 1:
            self._linked.add(key)
        weights.entries[mount] += 1
        weights.mounts[mount] += size
        weights.directories[b"/".join(path.split(b"/", 2)[:-1][:2])] += size
        weights.unknown_bytes += 0 if is_known else size
        return None, size

    def _mount_of(self, path: bytes) -> bytes:
        for mount in self._mounts:
            if path.startswith(mount) and path[len(mount) : len(mount) + 1] in (b"", b"/"):
                return mount
        return b""


def data_bytes(status: os.stat_result) -> int:
    """Return the bytes of a file that are not holes, as far as its blocks tell."""
    if status.st_size <= _NEVER_SPARSE_BYTES:
        return status.st_size
    return min(status.st_size, status.st_blocks * _BLOCK_BYTES)


def _is_sent(_chunk: bytes) -> bool:
    """Say of every chunk that the server has it: it had it, and a capture asks."""
    return True


def survey(
    root: str | Path,
    excludes: tuple[str, ...],
    layout: Layout | None,
    *,
    allow_secrets: bool,
    esp: str | None = "/boot/efi",
    closed: frozenset[bytes] = frozenset(),
    image: str = "",
    indexes: Path | None = None,
    progress: Callable[[int], None] = lambda entries: None,
) -> Survey:
    """Return what a capture of the tree beneath `root` would take; reads what the lint asks for, and marks of swap.

    What the capture index of `image` in `indexes` knows counts as sent. Raises what a capture raises: SecretsError with
    everything that is found, InvalidError, CaptureError.
    """
    with (
        opened(root, esp, excludes, layout, allow_secrets=allow_secrets, closed=closed) as source,
        peek_index(indexes, partial(bind_index, image, source.rooted, source.boundaries.crossed)) as index,
    ):
        weigher = Weigher(source.boundaries, lambda path, status: index.recall(path, status, _is_sent) is not None)
        notes = Notes()
        walker = Walker(source.boundaries, source.book, weigher, notes, source.linter)
        for number, _ in enumerate(walker.walk(source.rooted.fd)):
            if not number % _TOLD_EVERY:
                progress(number)
        return _survey(source, weigher.weights, notes)


def _survey(source: Source, weights: _Weights, notes: Notes) -> Survey:
    told = {one.mount: one.type for one in source.filesystems}
    points = (b"", *sorted(source.boundaries.crossed))
    return Survey(
        entries=weights.entries.total(),
        data_bytes=weights.mounts.total(),
        unknown_bytes=weights.unknown_bytes,
        mounts=tuple(
            MountShare(_shown(path), told.get(path, ""), weights.entries[path], weights.mounts[path]) for path in points
        ),
        closed=tuple(_shown(path) for path in sorted(source.boundaries.closed)),
        snapshots=tuple(map(_shown, notes.snapshots)),
        largest=tuple(
            DirectoryShare(_shown(path), size) for path, size in weights.directories.most_common(LARGEST) if size
        ),
        unmatched_excludes=source.unmatched_excludes(),
    )


def _shown(path: bytes) -> str:
    return "/" + path.decode(errors="backslashreplace")
