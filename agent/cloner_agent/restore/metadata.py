"""Metadata onto the target, in the order that keeps it: owner, mode, attributes, times; flags that lock come last."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from cloner_agent.restore.errors import failed
from cloner_agent.rooted import Rooted
from cloner_core.image.inode import (
    FLAG_APPEND,
    FLAG_CASEFOLD,
    FLAG_IMMUTABLE,
    FLAG_NOCOW,
    FLAGS_KEPT,
    FLAGS_REQUIRED,
    Inode,
    Kind,
)

# include/uapi/linux/fs.h: _IOR('f', 1, long), _IOW('f', 2, long); the kernel moves an int whatever the names say.
FS_IOC_GETFLAGS = 0x80006601 | struct.calcsize("l") << 16
_FS_IOC_SETFLAGS = 0x40006602 | struct.calcsize("l") << 16
_FLAGS = struct.Struct("I4x")
LOCKING = FLAG_IMMUTABLE | FLAG_APPEND  # nothing can be changed after these
AT_CREATION = FLAG_NOCOW | FLAG_CASEFOLD  # only an empty file or directory takes these
_UNSUPPORTED = (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


def get_flags(fd: int) -> int:
    """Return the chattr(1) flags of a file or directory, 0 where the filesystem has none."""
    try:
        return int(_FLAGS.unpack(fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(8)))[0])
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return 0
        raise


def set_flags(fd: int, wanted: int, mask: int, path: bytes) -> None:
    """Make the flags in `mask` be as in `wanted`.

    Raises RestoreError when one that matters cannot be kept; those that only advise another kind of filesystem
    (FLAGS_ADVISORY) may be lost.
    """
    try:
        before = get_flags(fd)
        after = (before & ~mask) | (wanted & mask)
        if after == before:
            return
        try:
            fcntl.ioctl(fd, _FS_IOC_SETFLAGS, _FLAGS.pack(after))
        except OSError as error:
            required = (before & ~(mask & FLAGS_REQUIRED)) | (wanted & mask & FLAGS_REQUIRED)
            if error.errno not in _UNSUPPORTED or required == after:
                raise
            if required != before:
                fcntl.ioctl(fd, _FS_IOC_SETFLAGS, _FLAGS.pack(required))
    except OSError as error:
        raise failed(f"set the flags {wanted & mask:#x} of", path, error) from error


def finish(fd: int, inode: Inode) -> None:
    """Give an open file or directory its owner, mode, attributes, times and the flags that do not lock it."""
    path = inode.path
    try:
        os.fchown(fd, inode.uid, inode.gid)  # drops set-id bits and capabilities: first
        os.fchmod(fd, inode.mode)
        for name, value in inode.xattrs:
            _set_xattr(fd, name, value, path)
        if inode.flags & ~LOCKING:
            set_flags(fd, inode.flags, FLAGS_KEPT & ~LOCKING, path)
        os.utime(fd, ns=(inode.mtime_ns, inode.mtime_ns))
    except OSError as error:
        raise failed("set owner, mode and times of", path, error) from error


def _set_xattr(target: int | bytes, name: bytes, value: bytes, path: bytes) -> None:
    try:
        os.setxattr(target, name, value, follow_symlinks=isinstance(target, int))
    except OSError as error:
        raise failed(f"set the attribute {os.fsdecode(name)} of", path, error) from error


def make_special(rooted: Rooted, inode: Inode) -> None:
    """Make a symbolic link, device or fifo with everything it has; one of that name is replaced."""
    path = inode.path
    try:
        parent, name = rooted.entry(path)
        try:
            _make(parent, name, inode)
        except FileExistsError:
            os.unlink(name, dir_fd=parent)  # from an earlier try; a directory there is an error
            _make(parent, name, inode)
        os.chown(name, inode.uid, inode.gid, dir_fd=parent, follow_symlinks=False)
        if inode.kind is not Kind.SYMLINK:
            os.chmod(name, inode.mode, dir_fd=parent)
        for attribute, value in inode.xattrs:
            # There is no descriptor of a link or device to be had without opening it.
            _set_xattr(b"/proc/self/fd/%d/%s" % (parent, name), attribute, value, path)
        os.utime(name, ns=(inode.mtime_ns, inode.mtime_ns), dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        raise failed(f"make the {inode.kind.name.lower()}", path, error) from error


def _make(parent: int, name: bytes, inode: Inode) -> None:
    if inode.kind is Kind.SYMLINK:
        os.symlink(inode.target, name, dir_fd=parent)
        return
    types = {Kind.CHARACTER: 0o020000, Kind.BLOCK: 0o060000, Kind.FIFO: 0o010000}
    os.mknod(name, types[inode.kind] | 0o600, os.makedev(*inode.device), dir_fd=parent)


def lock(rooted: Rooted, inode: Inode) -> None:
    """Set the immutable and append-only flags: the last thing done to an inode."""
    try:
        fd = rooted.open(inode.path, os.O_RDONLY | os.O_NONBLOCK, follow=False)
    except OSError as error:
        raise failed("open", inode.path, error) from error
    try:
        set_flags(fd, inode.flags, LOCKING, inode.path)
    finally:
        os.close(fd)
