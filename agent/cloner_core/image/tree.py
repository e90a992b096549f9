"""The tree: records in order, cut into segments, under a root whose digest names the version."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import msgpack  # type: ignore[import-untyped]
import msgspec
from msgspec import Meta

from cloner_core.decoding import UNREADABLE
from cloner_core.errors import IntegrityError
from cloner_core.image.digest import Bytes, digest, require_digest, version_digest
from cloner_core.image.inode import Inode, decode_inode
from cloner_core.image.limits import (
    DIGEST_BYTES,
    FORMAT,
    MAX_FILESYSTEMS,
    MAX_INODES,
    MAX_PATH_BYTES,
    MAX_RECORD_BYTES,
    MAX_ROOT_BYTES,
    MAX_SEGMENTS,
    SEGMENT_INODES,
    SEGMENT_RAW_BYTES,
)

Digest = Annotated[bytes, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Text = Annotated[str, Meta(max_length=4096)]

ROLE_ROOT = "root"
ROLE_ESP = "esp"  # path and bytes only: vfat keeps neither owner nor mode


class SegmentRef(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One segment as the root names it."""

    digest: Digest  # of its raw bytes
    raw_size: Annotated[int, Meta(ge=1, le=MAX_RECORD_BYTES)]
    first: Annotated[int, Meta(ge=1, le=MAX_INODES)]  # number of its first record
    count: Annotated[int, Meta(ge=1, le=SEGMENT_INODES)]
    data_bytes: Count  # of its files, holes not counted


class Filesystem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One filesystem of the source and what lies on it."""

    mount: Annotated[bytes, Meta(max_length=MAX_PATH_BYTES)]  # path in the tree; the root is b""
    role: Text  # ROLE_ROOT, ROLE_ESP, or "data" for any other
    type: Text = ""  # ext4, xfs, vfat …; "" when the source did not say
    uuid: Text = ""  # as the source's fstab or superblock shows it
    label: Text = ""
    inodes: Count = 0
    data_bytes: Count = 0  # holes not counted
    allocated_bytes: Count = 0  # data of files in blocks of 4 KiB, and 4 KiB for each directory


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the tree says of itself; the same files give the same facts."""

    architecture: Text = ""  # as in ELF's view of uname: x86_64, aarch64; "" when unknown
    os_id: Text = ""  # ID and VERSION_ID of etc/os-release
    os_version: Text = ""
    left_out: tuple[Text, ...] = ()  # rules of the capture, sorted


class TreeRoot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a version is: its digest is the digest of this, encoded."""

    format: int
    facts: Facts
    filesystems: Annotated[tuple[Filesystem, ...], Meta(min_length=1, max_length=MAX_FILESYSTEMS)]  # by mount
    inodes: Annotated[int, Meta(ge=1, le=MAX_INODES)]
    data_bytes: Count
    segments: Annotated[tuple[SegmentRef, ...], Meta(min_length=1, max_length=MAX_SEGMENTS)]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(TreeRoot)


def encode_root(root: TreeRoot) -> bytes:
    """Return the one encoding of `root`: MessagePack, maps with the fields in the order of the class."""
    return _encoder.encode(root)


def decode_root(data: bytes, version: bytes) -> TreeRoot:
    """Return the root of the version whose digest is `version`; raises IntegrityError when anything is wrong."""
    if len(data) > MAX_ROOT_BYTES:
        raise IntegrityError(f"a tree root of {len(data)} bytes is above {MAX_ROOT_BYTES}")
    seen = version_digest(data)
    if seen != version:
        raise IntegrityError(f"the tree root has digest {seen.hex()}, wanted {version.hex()}")
    try:
        root = _decoder.decode(data)
    except UNREADABLE as error:
        raise IntegrityError(f"tree root {version.hex()} cannot be read: {error}") from error
    faults = [] if _encoder.encode(root) == data else ["it is not in its canonical form"]
    if root.format != FORMAT:
        faults.append(f"format {root.format} seen, {FORMAT} known")
    mounts = [filesystem.mount for filesystem in root.filesystems]
    if mounts != sorted(set(mounts)) or mounts[0] != b"":
        faults.append("its filesystems are not sorted by mount, or the first is not the root")
    if any(b"\0" in mount or {b"", b".", b".."} & set(mount.split(b"/")) for mount in mounts[1:]):
        faults.append("a filesystem of it is mounted at what is no path of a tree")
    number = 1
    for segment in root.segments:
        if segment.first != number:
            faults.append(f"segment {segment.digest.hex()} begins at {segment.first}, wanted {number}")
            break
        number += segment.count
    if number - 1 != root.inodes or sum(segment.data_bytes for segment in root.segments) != root.data_bytes:
        faults.append("its totals differ from those of its segments")
    if faults:
        raise IntegrityError(f"tree root {version.hex()}: {'; '.join(faults)}")
    return root


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment and its raw bytes."""

    ref: SegmentRef
    raw: bytes


class SegmentWriter:
    """Cuts a stream of encoded records into segments."""

    def __init__(self) -> None:
        self._records: list[bytes] = []
        self._size = self._data_bytes = 0
        self._first = 1

    def add(self, record: bytes, data_bytes: int) -> Segment | None:
        """Take the next record; return the segment this closed, if it did."""
        full = len(self._records) == SEGMENT_INODES or self._size + len(record) > SEGMENT_RAW_BYTES
        closed = self.close() if full else None
        self._records.append(record)
        self._size += len(record)
        self._data_bytes += data_bytes
        return closed

    def close(self) -> Segment | None:
        """Return what was gathered since the last segment, or None when that is nothing."""
        if not self._records:
            return None
        raw = b"".join(self._records)
        ref = SegmentRef(digest(raw), len(raw), self._first, len(self._records), self._data_bytes)
        self._first += len(self._records)
        self._records, self._size, self._data_bytes = [], 0, 0
        return Segment(ref, raw)


@dataclass(frozen=True, slots=True)
class SegmentDelta:
    """A segment as what it has and others, which the receiver keeps, have not."""

    onto: tuple[tuple[bytes, int], ...]  # digest and raw size of the others, in the order in which they are the prefix
    frame: bytes  # of zstd, with that prefix


def first_path(raw: bytes) -> bytes:
    """Return the path of the first record in the raw bytes of a segment that was made here."""
    unpacker = msgpack.Unpacker(io.BytesIO(raw))
    unpacker.read_array_header()
    unpacker.skip()
    unpacker.skip()
    path: bytes = unpacker.unpack()
    return path


def record_ends(raw: bytes, count: int) -> list[int]:
    """Return the offset at which each of the `count` records in `raw` ends; raises IntegrityError otherwise."""
    unpacker = msgpack.Unpacker(max_buffer_size=max(len(raw), 1))
    unpacker.feed(raw)
    ends: list[int] = []
    try:
        for _ in range(count):
            unpacker.skip()
            ends.append(unpacker.tell())
    except (msgpack.UnpackException, ValueError) as error:
        raise IntegrityError(f"a segment breaks off after {len(ends)} of {count} records: {error!r}") from error
    if ends[-1] != len(raw):
        raise IntegrityError(f"a segment has {len(raw) - ends[-1]} bytes after its {count} records")
    return ends


def iter_segment(raw: Bytes, ref: SegmentRef) -> Iterator[tuple[Inode, int]]:
    """Give each inode of the segment and the length of its record; raises IntegrityError where bytes are wrong.

    Checks what can be checked of a record alone; TreeChecker checks it against the records before it.
    """
    what = f"segment {ref.digest.hex()}"
    if len(raw) != ref.raw_size:
        raise IntegrityError(f"{what} has {len(raw)} bytes, wanted {ref.raw_size}")
    require_digest(raw, ref.digest, what)
    content = bytes(raw)
    start = 0
    for end in record_ends(content, ref.count):
        yield decode_inode(content[start:end]), end - start
        start = end
