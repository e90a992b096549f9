"""What an inode says of itself beside its bytes: extended attributes and flags."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable

from cloner_core.image.inode import FLAGS_KEPT, XATTRS_OF_FILESYSTEM

Xattrs = tuple[tuple[bytes, bytes], ...]

# _IOR('f', 1, long), include/uapi/linux/fs.h; the kernel writes an int whatever the name says.
FS_IOC_GETFLAGS = 0x80006601 | struct.calcsize("l") << 16
_NO_FLAGS = (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
_BUFFER = b"\0" * 8
_FLAGS = struct.Struct("I")

# An HMAC over this very inode: it is wrong on any other machine. The kernel makes it anew where EVM is in use.
_DROPPED = "security.evm"


class MetadataReader:
    """Reads what capture records beside content; remembers which filesystems have no flags."""

    def __init__(self, on_dropped: Callable[[], None]) -> None:
        """Take what to call for each security.evm attribute that is dropped."""
        self._on_dropped = on_dropped
        self._without_flags: set[int] = set()

    def xattrs(self, target: int | bytes) -> Xattrs:
        """Return the attributes of a descriptor, or of a path whose last link is not followed; sorted by name."""
        follow = isinstance(target, int)
        try:
            names = os.listxattr(target, follow_symlinks=follow)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS):
                return ()
            raise
        if not names:
            return ()
        kept: list[tuple[bytes, bytes]] = []
        for name in names:
            if name == _DROPPED:
                self._on_dropped()
            elif os.fsencode(name) not in XATTRS_OF_FILESYSTEM:
                value = _value(target, name, follow)
                if value is not None:
                    kept.append((os.fsencode(name), value))
        return tuple(sorted(kept))

    def flags(self, fd: int, device: int) -> int:
        """Return the chattr(1) flags of a file or directory that a person can set; 0 where there are none."""
        if device in self._without_flags:
            return 0
        try:
            (flags,) = _FLAGS.unpack_from(fcntl.ioctl(fd, FS_IOC_GETFLAGS, _BUFFER))
        except OSError as error:
            if error.errno in _NO_FLAGS:
                self._without_flags.add(device)
                return 0
            raise
        return int(flags) & FLAGS_KEPT


def _value(target: int | bytes, name: str, follow: bool) -> bytes | None:
    """Return an attribute, None when it was removed since it was listed."""
    try:
        return os.getxattr(target, name, follow_symlinks=follow)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        return None
