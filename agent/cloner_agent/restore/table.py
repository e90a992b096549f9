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
    """An InodeTable with what was learned when it was made: five bytes in memory for each inode."""

    __slots__ = ("child_counts", "kinds", "late_flags", "table")

    def __init__(self, table: InodeTable, kinds: bytearray, child_counts: array[int], late_flags: list[int]) -> None:
        """Take the table; by number the kind of each inode and the entries of each directory; see `late_flags`."""
        self.table = table
        self.kinds = kinds
        self.child_counts = child_counts
        self.late_flags = late_flags  # numbers of the immutable and append-only inodes

    def directories(self) -> Iterator[int]:
        """Give the numbers of the directories, parents first."""
        return (number for number, kind in enumerate(self.kinds) if kind == Kind.DIRECTORY)


def spill_tree(root: TreeRoot, source: TreeSource, work_dir: Path) -> SpilledTree:
    """Fetch the tree of a verified `root`, check every law of it, and return it as a table.

    Two unnamed files in `work_dir` hold it: about 100 bytes an inode, gone when the table is closed. Raises
    IntegrityError before anything is restored when the tree is not valid.
    """
    records_fd, offsets_fd = _unnamed_file(work_dir), _unnamed_file(work_dir)
    try:
        checker = TreeChecker(root.filesystems)
        kinds, child_counts = bytearray(1), array("I", [0])
        late_flags: list[int] = []
        position = 0
        previous = None
        for ref in root.segments:
            raw = decompress(source.segment(ref.digest), ref.raw_size, f"segment {ref.digest.hex()}")
            offsets = array("Q")
            for inode, record_bytes in iter_segment(raw, ref):
                if previous is not None:
                    check_cut(previous, record_bytes)
                    previous = None
                parent = checker.add(inode)
                kinds.append(inode.kind)
                child_counts.append(0)
                if inode.flags & (FLAG_IMMUTABLE | FLAG_APPEND):
                    late_flags.append(inode.number)
                if parent:
                    child_counts[parent] += 1
                offsets.append(position)
                position += record_bytes
            previous = ref
            _write(records_fd, raw)
            _write(offsets_fd, offsets.tobytes())
        checker.finish(root)
        _write(offsets_fd, _OFFSET.pack(position))
        table = InodeTable(records_fd, offsets_fd, root.inodes, root.filesystems)
        return SpilledTree(table, kinds, child_counts, late_flags)
    except BaseException:
        os.close(records_fd)
        os.close(offsets_fd)
        raise


def _unnamed_file(directory: Path) -> int:
    fd, path = tempfile.mkstemp(prefix=".cloner-tree-", dir=directory)
    os.unlink(path)
    return fd


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
