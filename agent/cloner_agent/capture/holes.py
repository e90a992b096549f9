"""Where a file has no data. The same file must give the same answer whatever the page cache holds.

SEEK_HOLE alone does not: preallocated space counts as a hole until somebody reads it, and as data while the zeros
are cached (kernel, mm/filemap.c, mapping_seek_hole_data). FIEMAP tells unwritten extents for what they are.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from cloner_core.image.spans import Span

_FS_IOC_FIEMAP = 0xC020660B  # include/uapi/linux/fiemap.h
_HEADER = struct.Struct("<QQIIII")  # start, length, flags, mapped extents, room for extents, reserved
_EXTENT = struct.Struct("<QQQ16xI12x")  # logical, physical, length, flags
_ROOM = 16
# Without it, bytes written into preallocated space and still in memory would be taken for a hole and lost.
_FLAG_SYNC = 0x1
_EXTENT_LAST, _EXTENT_UNWRITTEN = 0x1, 0x800
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS)


class HoleFinder:
    """Finds holes; remembers which filesystems have no FIEMAP."""

    def __init__(self) -> None:
        self._buffer = bytearray(_HEADER.size + _ROOM * _EXTENT.size)
        self._without_fiemap: set[int] = set()

    def find(self, fd: int, size: int, device: int) -> list[Span]:
        """Return the holes of a file of `size` bytes on `device`, sorted and apart; may move its offset."""
        if device not in self._without_fiemap:
            try:
                return self._by_fiemap(fd, size)
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
                self._without_fiemap.add(device)
        return _by_seeking(fd, size)

    def _by_fiemap(self, fd: int, size: int) -> list[Span]:
        holes: list[Span] = []
        position = 0  # up to here everything is known
        begin = -1  # of the hole that ends at `position`, if one does
        asked = 0
        while asked < size:
            _HEADER.pack_into(self._buffer, 0, asked, size - asked, _FLAG_SYNC, 0, _ROOM, 0)
            fcntl.ioctl(fd, _FS_IOC_FIEMAP, self._buffer, True)
            mapped = _HEADER.unpack_from(self._buffer)[3]
            flags = 0
            for number in range(mapped):
                start, _, length, flags = _EXTENT.unpack_from(self._buffer, _HEADER.size + number * _EXTENT.size)
                end = min(start + length, size)
                if start > position and begin < 0:
                    begin = position
                if flags & _EXTENT_UNWRITTEN:
                    begin = max(start, position) if begin < 0 else begin
                elif begin >= 0:
                    holes.append((begin, start - begin))
                    begin = -1
                position = max(position, end)
            if not mapped or flags & _EXTENT_LAST:
                break
            asked = position
        if position < size and begin < 0:
            begin = position
        if begin >= 0:
            holes.append((begin, size - begin))
        return holes


def _by_seeking(fd: int, size: int) -> list[Span]:
    holes: list[Span] = []
    position = 0
    try:
        while position < size:
            hole = os.lseek(fd, position, os.SEEK_HOLE)
            if hole >= size:
                break
            try:
                position = min(os.lseek(fd, hole, os.SEEK_DATA), size)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                position = size  # the hole goes on to the end
            if position > hole:
                holes.append((hole, position - hole))
    except OSError as error:
        if error.errno not in (*_UNSUPPORTED, errno.ENXIO):
            raise
        return []  # no such call here, or the file shrank: the caller sees that it changed
    return holes
