"""Paths beneath a target tree: the only module of the agent that opens them.

Every name is resolved by openat2(2) with RESOLVE_IN_ROOT, so that neither `..` nor a symbolic link of the
image, absolute or relative, can lead out of the target. Must not know what the files mean: modes, owners and
contents are the caller's.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import stat
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

# include/uapi/linux/openat2.h
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_IN_ROOT = 0x10

_SYS_OPENAT2 = 437  # the same number on every architecture since Linux 5.6
_RETRIES = 128  # EAGAIN: a rename elsewhere raced with `..`; openat2(2) says to try again

Pathish = bytes | str | os.PathLike[str] | os.PathLike[bytes]


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def openat2(dir_fd: int, path: bytes, flags: int, mode: int, resolve: int) -> int:
    """Open `path` beneath `dir_fd` as openat2(2) does and return the descriptor; raises OSError."""
    # O_TMPFILE holds the bit of O_DIRECTORY; a mode without creation is EINVAL.
    creates = flags & os.O_CREAT or flags & os.O_TMPFILE == os.O_TMPFILE
    how = _OpenHow(flags | os.O_CLOEXEC, mode if creates else 0, resolve)
    for _ in range(_RETRIES):
        fd = _libc.syscall(_SYS_OPENAT2, dir_fd, path, ctypes.byref(how), ctypes.sizeof(how))
        if fd >= 0:
            return int(fd)
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(number, os.strerror(number), os.fsdecode(path))


def relative(path: Pathish) -> bytes:
    """Return `path` as bytes without leading slashes; the root itself is b""."""
    return os.fsencode(path).lstrip(b"/")


class Rooted:
    """One directory tree, every access confined to it; owns its descriptors until closed."""

    def __init__(self, root: Pathish | int, *, cached_directories: int = 256) -> None:
        """Open `root`, a path or a descriptor (duplicated, so the caller keeps its own)."""
        if isinstance(root, int):
            self.fd = os.dup(root)
        else:
            self.fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._cached_directories = cached_directories
        self._directories: OrderedDict[bytes, int] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every descriptor; the value must not be used afterwards."""
        self.forget_directories()
        os.close(self.fd)

    def forget_directories(self) -> None:
        """Close the cached directory descriptors, for instance before an unmount or after a fork."""
        while self._directories:
            os.close(self._directories.popitem()[1])

    def open(self, path: Pathish, flags: int, mode: int = 0o600, *, follow: bool = True) -> int:
        """Open `path`, links followed inside the root or refused (ELOOP); the caller closes the descriptor."""
        resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | (0 if follow else RESOLVE_NO_SYMLINKS)
        return openat2(self.fd, relative(path) or b".", flags, mode, resolve)

    def directory(self, path: bytes) -> int:
        """Return a cached descriptor, owned by this value, of the directory `path`; no link may be on the way."""
        if not path:
            return self.fd
        fd = self._directories.get(path)
        if fd is not None:
            self._directories.move_to_end(path)
            return fd
        fd = self.open(path, os.O_RDONLY | os.O_DIRECTORY, follow=False)
        if len(self._directories) >= self._cached_directories:
            os.close(self._directories.popitem(last=False)[1])
        self._directories[path] = fd
        return fd

    def entry(self, path: bytes) -> tuple[int, bytes]:
        """Return (cached descriptor of the parent, last name) of `path` for the *at() calls; no link on the way."""
        parent, _, name = path.rpartition(b"/")
        if name in (b"", b".", b".."):
            raise OSError(errno.EINVAL, "not the name of an entry", os.fsdecode(path))
        return self.directory(parent), name

    @contextmanager
    def parent(self, path: Pathish) -> Iterator[tuple[int, bytes]]:
        """Give (descriptor of the parent, last name) of `path`, links in the parent followed inside the root."""
        head, _, name = relative(path).rstrip(b"/").rpartition(b"/")
        if name in (b"", b".", b".."):
            raise OSError(errno.EINVAL, "not the name of an entry", os.fsdecode(path))
        fd = self.open(head, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield fd, name
        finally:
            os.close(fd)

    def lstat(self, path: Pathish) -> os.stat_result:
        """Return the status of `path` itself, a last link not followed."""
        if not relative(path):
            return os.fstat(self.fd)
        with self.parent(path) as (fd, name):
            return os.stat(name, dir_fd=fd, follow_symlinks=False)

    def exists(self, path: Pathish) -> bool:
        """Tell whether `path` leads to something inside the root, links followed."""
        try:
            os.close(self.open(path, os.O_PATH))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return False
            raise
        return True

    def listdir(self, path: Pathish) -> list[bytes]:
        """Return the names in the directory `path`, sorted."""
        fd = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return sorted(os.fsencode(name) for name in os.listdir(fd))
        finally:
            os.close(fd)

    def read(self, path: Pathish, *, limit_bytes: int = 16 << 20) -> bytes:
        """Return the content of the regular file `path`; raises OSError (EFBIG) above `limit_bytes`."""
        fd = self.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", os.fsdecode(path))
            # By the size it has now: read(limit) would allocate the whole limit first.
            data = file.read(min(os.fstat(fd).st_size, limit_bytes) + 1)
        if len(data) > limit_bytes:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), os.fsdecode(path))
        return data

    def write(self, path: Pathish, data: bytes, *, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
        """Replace the file `path` by one with `data`, durably and at once: a reader sees the old or the new file.

        A last link is replaced, not followed. Parents must exist.
        """
        with self.parent(path) as (parent, name):
            temporary = b".cloner-" + secrets.token_hex(8).encode()
            fd = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent
            )
            try:
                with os.fdopen(fd, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fchown(fd, uid, gid)
                    os.fchmod(fd, mode)
                    os.fsync(fd)
                os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:
                os.unlink(temporary, dir_fd=parent)
                raise
            os.fsync(parent)

    def mkdir(self, path: Pathish, *, mode: int = 0o755) -> None:
        """Make the directory `path` and its missing parents; one that exists is left as it is."""
        done = b""
        for component in relative(path).split(b"/"):
            if component in (b"", b"."):
                continue
            done = done + b"/" + component if done else component
            if self.exists(done):
                continue
            with self.parent(done) as (parent, name):
                os.mkdir(name, dir_fd=parent)
                os.chmod(name, mode, dir_fd=parent)

    def symlink(self, target: Pathish, path: Pathish) -> None:
        """Make the symbolic link `path` that says `target`; raises FileExistsError when the name is taken."""
        with self.parent(path) as (parent, name):
            os.symlink(os.fsencode(target), name, dir_fd=parent)

    def readlink(self, path: Pathish) -> bytes:
        """Return what the symbolic link `path` says."""
        with self.parent(path) as (parent, name):
            return os.fsencode(os.readlink(name, dir_fd=parent))

    def unlink(self, path: Pathish, *, missing_ok: bool = False) -> None:
        """Remove the entry `path`, not a directory, not what a link leads to."""
        try:
            with self.parent(path) as (parent, name):
                os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rmdir(self, path: Pathish) -> None:
        """Remove the empty directory `path`."""
        with self.parent(path) as (parent, name):
            os.rmdir(name, dir_fd=parent)

    def rename(self, old: Pathish, new: Pathish) -> None:
        """Rename `old` to `new`, replacing it, and make both directories durable."""
        with self.parent(old) as (source, old_name), self.parent(new) as (target, new_name):
            os.rename(old_name, new_name, src_dir_fd=source, dst_dir_fd=target)
            os.fsync(target)
            os.fsync(source)
