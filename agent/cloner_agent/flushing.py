"""What was written to a filesystem, onto its disk."""

from __future__ import annotations

import ctypes
import os

_SYNC_FILE_RANGE_WRITE = 2  # include/uapi/linux/fs.h
_off_t = ctypes.c_int64

_libc = ctypes.CDLL(None, use_errno=True)


def start_writing(fd: int, offset: int, length: int) -> None:
    """Have the kernel begin to write these bytes of an open file to the disk, without waiting for them.

    Left alone it begins after half a minute, or when a tenth of the memory waits: on a big machine most of an image.
    Advice: trouble of the disk shows at the next sync.
    """
    _libc.sync_file_range(fd, _off_t(offset), _off_t(length), _SYNC_FILE_RANGE_WRITE)


def sync_filesystem(fd: int) -> None:
    """Write everything of the filesystem of an open file; raises OSError, also for a write that failed before."""
    if _libc.syncfs(fd):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
