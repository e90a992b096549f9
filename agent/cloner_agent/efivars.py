"""Reads, writes and deletes firmware variables as efivarfs shows them: one file each, attributes in front.

Must not know what boot entries mean. The directory is a parameter, so that tests use a plain one.
Source: Documentation/filesystems/efivarfs.rst.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import struct
from pathlib import Path

from cloner_core.efi import GLOBAL_GUID, frame, unframe

log = logging.getLogger(__name__)


_CRASH_PREFIX = "dump-type0-"  # crash dumps of Linux (fs/pstore), the usual filling of a full NVRAM
_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS = 0x80086601, 0x40086602  # include/uapi/linux/fs.h, 64-bit
_IMMUTABLE = 0x10
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM)


class NvramFullError(OSError):
    """The firmware has no room for the variable."""


class EfiVars:
    """The variables of the firmware's own vendor GUID (Boot####, BootOrder, …)."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)

    @property
    def is_there(self) -> bool:
        """Say whether this machine shows its variables at all."""
        return self.directory.is_dir() and any(self.directory.iterdir())

    def all(self) -> dict[str, bytes]:
        """Return every variable of the global GUID by name, without attributes; unreadable ones are left out."""
        found = {}
        for path in sorted(self.directory.glob(f"*-{GLOBAL_GUID}")):
            # Some firmware refuses single variables (EIO); that must not hide the rest.
            with contextlib.suppress(OSError):
                found[path.name[: -len(GLOBAL_GUID) - 1]] = unframe(path.read_bytes())
        return found

    def read(self, name: str) -> bytes | None:
        """Return the value of a variable; None when there is none of that name."""
        try:
            return unframe(self._path(name).read_bytes())
        except FileNotFoundError:
            return None

    def write(self, name: str, value: bytes) -> None:
        """Set a variable. Raises NvramFullError when the firmware has no room, OSError for other trouble."""
        path = self._path(name)
        existed = path.exists()
        try:
            self._make_mutable(path)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            try:
                # One write: the kernel hands each write to the firmware as a whole variable.
                os.write(fd, frame(value))
            finally:
                os.close(fd)
        except OSError as error:
            if not existed:
                with contextlib.suppress(OSError):
                    path.unlink()
            if error.errno in _FULL:
                raise NvramFullError(error.errno, "the firmware's variable store is full", str(path)) from error
            raise

    def delete(self, name: str) -> None:
        """Remove a variable; one that is not there is fine."""
        self._unlink(self._path(name))

    def delete_crash_dumps(self) -> int:
        """Remove crash dumps that Linux left in the variable store; returns how many."""
        dumps = list(self.directory.glob(f"{_CRASH_PREFIX}*"))
        for path in dumps:
            self._unlink(path)
        return len(dumps)

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}-{GLOBAL_GUID}"

    def _unlink(self, path: Path) -> None:
        self._make_mutable(path)
        path.unlink(missing_ok=True)

    def _make_mutable(self, path: Path) -> None:
        """Clear the immutable flag that efivarfs puts on what it does not know to be harmless."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        try:
            (flags,) = struct.unpack("l", fcntl.ioctl(fd, _FS_IOC_GETFLAGS, b"\0" * struct.calcsize("l")))
            if flags & _IMMUTABLE:
                fcntl.ioctl(fd, _FS_IOC_SETFLAGS, struct.pack("l", flags & ~_IMMUTABLE))
        except OSError as error:
            log.debug("%s: flags: %s", path.name, error)
        finally:
            os.close(fd)
