"""The tree on the node: every record found by its number, in bounded memory.

The records are spilled to a file and read from it again; memory holds eight bytes for each, mapped from a second
file so that the kernel can take them back. A million inodes cost 8 MiB where a list of them would cost 600.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from cloner_agent.restore.source import TreeSource
from cloner_core.image.checker import TreeChecker, check_cut
from cloner_core.image.compression import decompress
from cloner_core.image.inode import FLAG_APPEND, FLAG_IMMUTABLE, Inode, Kind, decode_trusted
from cloner_core.image.tree import ROLE_ESP, Filesystem, TreeRoot, iter_segment

_OFFSET = struct.Struct("<Q")
_WINDOW_BYTES = 256 << 10


class InodeTable:
    """The records of a verified tree. Fork-safe: every read names its offset."""

    def __init__(self, records_fd: int, offsets_fd: int, count: int, filesystems: tuple[Filesystem, ...]) -> None:
        """Take the spilled records and the offset of each, and one for the end; owns both descriptors."""
        self._records_fd = records_fd
        self._offsets = mmap.mmap(offsets_fd, (count + 1) * _OFFSET.size, prot=mmap.PROT_READ)
        os.close(offsets_fd)
        self._window = b""
        self._window_start = 0
        self.count = count
        self.filesystems = filesystems
        self._esp_mounts = tuple(fs.mount for fs in filesystems if fs.role == ROLE_ESP)
        self._esp_prefixes = tuple(mount + b"/" for mount in self._esp_mounts)

    def close(self) -> None:
        """Close what this value owns; the files are gone with it."""
        self._offsets.close()
        os.close(self._records_fd)

    def inode(self, number: int) -> Inode:
        """Return inode `number`, from 1; raises IndexError outside the tree."""
        if not 1 <= number <= self.count:
            raise IndexError(number)
        start, end = struct.unpack_from("<QQ", self._offsets, (number - 1) * _OFFSET.size)
        at = start - self._window_start
        if at < 0 or end - self._window_start > len(self._window):
            # What is asked for next mostly comes next.
            self._window = os.pread(self._records_fd, max(_WINDOW_BYTES, end - start), start)
            self._window_start, at = start, 0
        return decode_trusted(self._window[at : at + end - start])

    def range(self, first: int, end: int) -> Iterator[Inode]:
        """Give the inodes from `first` up to, not including, `end`."""
        return (self.inode(number) for number in range(first, end))

    def is_on_esp(self, path: bytes) -> bool:
        """Tell whether `path` lies beneath the mount point of an ESP, where only path and bytes are kept."""
        return bool(self._esp_prefixes) and path.startswith(self._esp_prefixes)

    def is_esp_mount(self, path: bytes) -> bool:
        """Tell whether `path` is the mount point of an ESP."""
        return path in self._esp_mounts


class SpilledTree:
    """An InodeTable with what was learned when it was made: five to nine bytes in memory for each inode."""

    __slots__ = ("child_counts", "kinds", "late_flags", "packless", "table")

    def __init__(
        self,
        table: InodeTable,
        kinds: bytearray,
        child_counts: array[int],
        *,
        packless: array[int],
        late_flags: list[int],
    ) -> None:
        """Take the table; by number the kind of each inode and the entries of each directory; see the others."""
        self.table = table
        self.kinds = kinds
        self.child_counts = child_counts
        self.packless = packless  # numbers of what no pack holds: files without data, symbolic links, devices, fifos
        self.late_flags = late_flags  # numbers of the immutable and append-only inodes

    def directories(self) -> Iterator[int]:
        """Give the numbers of the directories, parents first."""
        return (number for number, kind in enumerate(self.kinds) if kind == Kind.DIRECTORY)


def spill_tree(root: TreeRoot, source: TreeSource, work_dir: Path) -> SpilledTree:
    """Fetch the tree of a verified `root`, check every law of it, and return it as a table.

    Two unnamed files in `work_dir` hold it: about 100 bytes an inode, gone when the table is closed. Raises
    IntegrityError before anything is restored when the tree is not valid.
    """
    with Spill(work_dir, root.filesystems) as spill:
        previous = None
        for ref in root.segments:
            raw = decompress(source.segment(ref.digest), ref.raw_size, f"segment {ref.digest.hex()}")
            for inode, record_bytes in iter_segment(raw, ref):
                if previous is not None:
                    check_cut(previous, record_bytes)
                    previous = None
                spill.note(inode, record_bytes)
            previous = ref
            spill.write(raw)
        spill.checker.finish(root)
        return spill.table()


class Spill:
    """A table as it grows: records noted one by one, in the order of a tree, and their bytes written in any pieces."""

    def __init__(self, work_dir: Path, filesystems: tuple[Filesystem, ...]) -> None:
        """Make the two unnamed files; `filesystems` are those of the tree, their totals do not matter."""
        self.checker = TreeChecker(filesystems)
        self._files = [_unnamed_file(work_dir), _unnamed_file(work_dir)]
        self._kinds, self._child_counts = bytearray(1), array("I", [0])
        self._packless = array("I")
        self._late_flags: list[int] = []
        self._offsets = array("Q")
        self._position = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._files:  # none when the table has them
            os.close(fd)

    def note(self, inode: Inode, record_bytes: int) -> None:
        """Take the next record; raises IntegrityError when it cannot belong to the tree."""
        parent = self.checker.add(inode)
        self._kinds.append(inode.kind)
        self._child_counts.append(0)
        if not inode.chunks and inode.kind not in (Kind.DIRECTORY, Kind.LINK):
            self._packless.append(inode.number)
        if inode.flags & (FLAG_IMMUTABLE | FLAG_APPEND):
            self._late_flags.append(inode.number)
        if parent:
            self._child_counts[parent] += 1
        self._offsets.append(self._position)
        self._position += record_bytes

    def write(self, records: bytes | bytearray) -> None:
        """Write the bytes of records that were noted, in their order."""
        _write(self._files[0], records)
        _write(self._files[1], self._offsets.tobytes())
        del self._offsets[:]

    def table(self) -> SpilledTree:
        """Return the tree; every record was noted and written, and the files are the table's from now on."""
        _write(self._files[1], _OFFSET.pack(self._position))
        (records_fd, offsets_fd), self._files = self._files, []
        table = InodeTable(records_fd, offsets_fd, self.checker.count, self.checker.counted())
        return SpilledTree(table, self._kinds, self._child_counts, packless=self._packless, late_flags=self._late_flags)


def _unnamed_file(directory: Path) -> int:
    fd, path = tempfile.mkstemp(prefix=".cloner-tree-", dir=directory)
    os.unlink(path)
    return fd


def _write(fd: int, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
