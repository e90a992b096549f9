"""Writes cpio archives in the newc format, the one the kernel unpacks into its rootfs.

Pure and deterministic: the same entries give the same bytes. Must not read a file system; `tree` does.
Source: kernel, Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cloner_core.errors import InvalidError

MAGIC = b"070701"
TRAILER = b"TRAILER!!!"
PATH_LIMIT = 4096
FILE_LIMIT_BYTES = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Entry:
    """One inode of the archive; owner is always root, time always 0."""

    path: bytes  # relative, no leading slash
    mode: int  # type and permission bits, as in st_mode
    data: bytes = b""  # content of a file, target of a symbolic link
    device: tuple[int, int] = (0, 0)  # major, minor of a device node


def file(path: str, data: bytes, mode: int = 0o644) -> Entry:
    """Return a regular file."""
    return Entry(path.encode(), stat.S_IFREG | mode, data)


def directory(path: str, mode: int = 0o755) -> Entry:
    """Return a directory."""
    return Entry(path.encode(), stat.S_IFDIR | mode)


def symlink(path: str, target: str) -> Entry:
    """Return a symbolic link."""
    return Entry(path.encode(), stat.S_IFLNK | 0o777, target.encode())


def character_device(path: str, major: int, minor: int, mode: int = 0o600) -> Entry:
    """Return a character device node."""
    return Entry(path.encode(), stat.S_IFCHR | mode, device=(major, minor))


def with_parents(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries sorted by path, with every directory that was left implicit.

    A later entry of the same path replaces an earlier one. The kernel makes no parents by itself, and sorting
    puts each directory before its content.
    """
    by_path: dict[bytes, Entry] = {}
    for entry in entries:
        by_path[entry.path] = entry
    for path in list(by_path):
        parts = path.split(b"/")
        for depth in range(1, len(parts)):
            parent = b"/".join(parts[:depth])
            by_path.setdefault(parent, Entry(parent, stat.S_IFDIR | 0o755))
    return [by_path[path] for path in sorted(by_path, key=lambda path: path.split(b"/"))]


def archive(entries: Iterable[Entry]) -> Iterator[bytes]:
    """Yield the archive in pieces: header and name, content, ..., trailer; the whole is a multiple of 4 bytes.

    Raises InvalidError for a path the kernel would refuse or misread.
    """
    for number, entry in enumerate(entries, start=1):
        _check(entry)
        yield _header(entry.path, entry.mode, number, len(entry.data), entry.device)
        if entry.data:
            yield entry.data
            yield bytes(-len(entry.data) % 4)
    yield _header(TRAILER, 0, 0, 0, (0, 0))


def pack(entries: Iterable[Entry]) -> bytes:
    """Return the archive whole."""
    return b"".join(archive(entries))


def _check(entry: Entry) -> None:
    path = entry.path
    bad = (
        not path
        or path.startswith(b"/")
        or b"\0" in path
        or path == TRAILER
        or len(path) >= PATH_LIMIT
        or any(part in (b"", b".", b"..") for part in path.split(b"/"))
    )
    if bad:
        raise InvalidError(f"archive path {path!r} is not a plain relative path")
    if len(entry.data) > FILE_LIMIT_BYTES:
        raise InvalidError(f"{path!r} has {len(entry.data)} bytes; newc holds at most {FILE_LIMIT_BYTES}")


def _header(path: bytes, mode: int, number: int, size_bytes: int, device: tuple[int, int]) -> bytes:
    links = 2 if stat.S_ISDIR(mode) else 1
    # Inode, mode, uid, gid, nlink, mtime, size, dev major/minor, rdev major/minor, name size, checksum.
    fields = (number, mode, 0, 0, links, 0, size_bytes, 0, 0, *device, len(path) + 1, 0)
    head = MAGIC + b"".join(b"%08X" % field for field in fields) + path + b"\0"
    return head + bytes(-len(head) % 4)
