"""One record of a tree: an inode, or one more name of it. Knows nothing of the records around it."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, NoReturn

import msgspec
from msgspec import Meta

from cloner_core.decoding import UNREADABLE
from cloner_core.errors import IntegrityError
from cloner_core.image.limits import (
    CHUNK_BYTES,
    DIGEST_BYTES,
    MAX_DEVICE_MAJOR,
    MAX_DEVICE_MINOR,
    MAX_FILE_BYTES,
    MAX_FILE_CHUNKS,
    MAX_ID,
    MAX_INODES,
    MAX_PATH_BYTES,
    MAX_XATTR_NAMES_BYTES,
    MAX_XATTR_VALUE_BYTES,
    MAX_XATTRS_BYTES,
)
from cloner_core.image.spans import Spans


class Kind(IntEnum):
    """What a record stands for. Sockets are never part of an image."""

    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3
    CHARACTER = 4
    BLOCK = 5
    FIFO = 6
    LINK = 7  # one more name of the inode `leader`


# FS_IOC_SETFLAGS, include/uapi/linux/fs.h: the flags a person can set. The rest describe how the filesystem
# keeps the inode (extents, indexed directory, encrypted, verity, inline data) and are never recorded.
FLAG_IMMUTABLE = 0x00000010
FLAG_APPEND = 0x00000020
FLAG_NOCOW = 0x00800000
FLAG_CASEFOLD = 0x40000000
_FLAG_SYNC, _FLAG_NODUMP, _FLAG_NOATIME, _FLAG_DIRSYNC = 0x08, 0x40, 0x80, 0x00010000
# A target that cannot keep one of these fails the task …
FLAGS_REQUIRED = (
    FLAG_IMMUTABLE | FLAG_APPEND | FLAG_CASEFOLD | _FLAG_SYNC | _FLAG_NODUMP | _FLAG_NOATIME | _FLAG_DIRSYNC
)
# … these are advice to one kind of filesystem: secrm, unrm, compr, nocompr, journal data, notail, topdir, nocow,
# projinherit.
FLAGS_ADVISORY = 0x01 | 0x02 | 0x04 | 0x400 | 0x4000 | 0x8000 | 0x00020000 | FLAG_NOCOW | 0x20000000
FLAGS_KEPT = FLAGS_REQUIRED | FLAGS_ADVISORY
XATTRS_OF_FILESYSTEM = frozenset((b"trusted.SGI_ACL_FILE", b"trusted.SGI_ACL_DEFAULT", b"btrfs.compression"))
"""Attributes by which XFS shows ACLs a second time, and btrfs its own settings: they are no part of an inode."""

SYMLINK_MODE = 0o777

_Xattr = tuple[
    Annotated[bytes, Meta(min_length=1, max_length=255)], Annotated[bytes, Meta(max_length=MAX_XATTR_VALUE_BYTES)]
]


class Inode(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A record as it is written: a MessagePack array of these fifteen values in this order."""

    number: Annotated[int, Meta(ge=1, le=MAX_INODES)]  # 1 is the root directory; without gaps
    kind: Kind
    path: Annotated[bytes, Meta(max_length=MAX_PATH_BYTES)]  # from the root, no leading slash; the root is b""
    mode: Annotated[int, Meta(ge=0, le=0o7777)] = 0
    uid: Annotated[int, Meta(ge=0, le=MAX_ID)] = 0
    gid: Annotated[int, Meta(ge=0, le=MAX_ID)] = 0
    mtime_ns: Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)] = 0  # since 1970, negative before it
    size: Annotated[int, Meta(ge=0, le=MAX_FILE_BYTES)] = 0  # of a regular file, holes included; else 0
    device: tuple[Annotated[int, Meta(ge=0, le=MAX_DEVICE_MAJOR)], Annotated[int, Meta(ge=0, le=MAX_DEVICE_MINOR)]] = (
        0,
        0,
    )  # major, minor
    target: Annotated[bytes, Meta(max_length=MAX_PATH_BYTES)] = b""  # what a symbolic link says
    leader: Annotated[int, Meta(ge=0, le=MAX_INODES)] = 0  # of a link: the number of the inode it is a name of
    xattrs: Annotated[tuple[_Xattr, ...], Meta(max_length=MAX_XATTR_NAMES_BYTES // 2)] = ()  # sorted by name
    flags: Annotated[int, Meta(ge=0, le=FLAGS_KEPT)] = 0  # of FS_IOC_GETFLAGS, those in FLAGS_KEPT
    holes: bytes = b""  # see spans.encode_holes
    chunks: Annotated[bytes, Meta(max_length=MAX_FILE_CHUNKS * DIGEST_BYTES)] = b""  # 32 bytes for each span

    def spans(self) -> Spans:
        """Return the span in the file of each chunk, in the order of `chunks`."""
        return Spans(self.size, self.holes)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Inode)


def encode_inode(inode: Inode) -> bytes:
    """Return the one encoding of `inode` (MessagePack, every value in its shortest form)."""
    return _encoder.encode(inode)


def decode_inode(record: bytes) -> Inode:
    """Return the inode `record` stands for; raises IntegrityError when any value is wrong or not in its one form."""
    try:
        inode = _decoder.decode(record)
    except UNREADABLE as error:
        raise IntegrityError(f"a record of the tree cannot be read: {error}") from error
    if _encoder.encode(inode) != record:
        raise IntegrityError(f"record {inode.number} is not in its canonical form")
    check_inode(inode)
    return inode


def decode_trusted(record: bytes) -> Inode:
    """Return the inode of a record that decode_inode has accepted before; raises IntegrityError if it was changed."""
    try:
        return _decoder.decode(record)
    except UNREADABLE as error:
        raise IntegrityError(f"a record of the tree was changed after it was checked: {error}") from error


def check_inode(inode: Inode) -> None:
    """Raise IntegrityError unless the values of `inode` fit its kind; those that mean nothing to it must be empty."""
    kind = inode.kind
    if b"\0" in inode.path or inode.path[:1] == b"/":
        _refuse(inode, "its path is not relative or holds a NUL")
    if kind is not Kind.FILE and (inode.size or inode.holes or inode.chunks):
        _refuse(inode, "only a regular file has content")
    if kind is Kind.FILE:
        wanted = 1 if 0 < inode.size <= CHUNK_BYTES and not inode.holes else len(inode.spans())
        if len(inode.chunks) != wanted * DIGEST_BYTES:
            _refuse(inode, f"{wanted} chunks wanted, {len(inode.chunks)} bytes of digests seen")
    elif kind is Kind.LINK:
        if inode != Inode(inode.number, Kind.LINK, inode.path, leader=inode.leader):
            _refuse(inode, "a link has a leader and nothing else")
    elif kind is Kind.SYMLINK and (not inode.target or b"\0" in inode.target or inode.mode != SYMLINK_MODE):
        _refuse(inode, "a symbolic link says something and has mode 0777")
    if inode.flags and (inode.flags & ~FLAGS_KEPT or kind not in (Kind.FILE, Kind.DIRECTORY)):
        _refuse(inode, f"flags {inode.flags:#x} cannot be set on it")
    if inode.target and kind is not Kind.SYMLINK:
        _refuse(inode, "only a symbolic link has a target")
    if inode.leader and kind is not Kind.LINK:
        _refuse(inode, "only a link has a leader")
    if inode.device != (0, 0) and kind not in (Kind.CHARACTER, Kind.BLOCK):
        _refuse(inode, "only a device has a device number")
    if inode.xattrs:
        _check_xattrs(inode)


def _check_xattrs(inode: Inode) -> None:
    previous = b""
    names = values = 0
    for name, value in inode.xattrs:
        if name <= previous or b"\0" in name:
            _refuse(inode, "its extended attributes are not sorted, or a name holds a NUL")
        previous = name
        names += len(name) + 1
        values += len(value)
    if names > MAX_XATTR_NAMES_BYTES or values > MAX_XATTRS_BYTES:
        _refuse(inode, f"{names} bytes of attribute names and {values} of values are too many")


def _refuse(inode: Inode, why: str) -> NoReturn:
    raise IntegrityError(f"record {inode.number} of the tree, {inode.kind.name.lower()} {inode.path!r}: {why}")
