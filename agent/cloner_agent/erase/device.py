"""A block device, read and written past the page cache: what is read came from the disk, what is written went there.

Knows offsets and bytes; must not know why.
"""

from __future__ import annotations

import errno
import mmap
import os
from types import TracebackType
from typing import Self

from cloner_agent.failures import StageError
from cloner_core.messages import Cause

PIECE_BYTES = 4 << 20
"""Of one request at most; a multiple of every sector size."""


class Device:
    """An open disk. Offsets and sizes are multiples of its sector size."""

    def __init__(self, path: str, *, writable: bool = False) -> None:
        """Open it; without O_DIRECT only where that is not known (a file on a tmpfs), and then caches are dropped."""
        flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC
        self.path = path
        # Page-aligned, as direct I/O wants it.
        self._buffer = mmap.mmap(-1, PIECE_BYTES)
        self._is_direct = True
        try:
            self._fd = os.open(path, flags | os.O_DIRECT)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise self._failed("be opened", 0, error) from error
            self._is_direct = False
            self._fd = os.open(path, flags)

    def __enter__(self) -> Self:
        """Return the open device."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        os.close(self._fd)

    @property
    def size_bytes(self) -> int:
        """Its size now."""
        return os.lseek(self._fd, 0, os.SEEK_END)

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Return `size_bytes` (at most PIECE_BYTES) from `offset`; raises StageError (DISK_IO) naming the byte."""
        if not self._is_direct:
            os.posix_fadvise(self._fd, offset, size_bytes, os.POSIX_FADV_DONTNEED)
        done = 0
        with memoryview(self._buffer) as view:
            while done < size_bytes:
                try:
                    got = os.preadv(self._fd, [view[done:size_bytes]], offset + done)
                except OSError as error:
                    raise self._failed("be read", offset + done, error) from error
                if not got:
                    raise StageError(Cause.DISK_IO, f"{self.path} ends at byte {offset + done}, before its size")
                done += got
            return bytes(view[:size_bytes])

    def write(self, offset: int, data: bytes) -> None:
        """Write `data` (at most PIECE_BYTES) at `offset`; raises StageError (DISK_IO) naming the byte."""
        self._buffer[: len(data)] = data
        done = 0
        with memoryview(self._buffer) as view:
            while done < len(data):
                try:
                    done += os.pwritev(self._fd, [view[done : len(data)]], offset + done)
                except OSError as error:
                    raise self._failed("be written", offset + done, error) from error

    def sync(self) -> None:
        """Have the disk keep what was written, its own cache included."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise self._failed("be flushed", 0, error) from error

    def _failed(self, what: str, offset: int, error: OSError) -> StageError:
        return StageError(Cause.DISK_IO, f"{self.path} cannot {what} at byte {offset}: {error.strerror}")
