"""The tree of the last capture on this machine, so that the next one sends what differs of it.

In an update nearly every record is as it was but for its number, and the digest of each file's content does not
compress: sent whole, the tree is a third of an update. The server has the former segments too. Here they are kept as
they were stored, each named by its digest: a damaged one is not used.
"""

from __future__ import annotations

import os
import struct
import threading
from bisect import bisect_right
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from cloner_agent.capture.keeping import UnusableError, create_beside, open_own, put_in_place, walk_key
from cloner_core.decoding import UNREADABLE
from cloner_core.errors import IntegrityError
from cloner_core.image.compression import compress_onto, decompress
from cloner_core.image.digest import digest, require_digest
from cloner_core.image.limits import DIGEST_BYTES, MAX_SEGMENTS, ONTO_MOST, SEGMENT_RAW_BYTES
from cloner_core.image.tree import Segment, SegmentDelta, first_path

_MAGIC = b"cloner former tree 1\n"
_END = struct.Struct(f"<Q{DIGEST_BYTES}s")  # length of the table before it, digest of the table
_TABLE_BYTES = MAX_SEGMENTS * 4200


class _Kept(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    key: bytes  # of the path of the first record, in the order of the walk
    digest: bytes
    raw_size: int
    offset: int
    size: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[_Kept]).decode


class FormerTree:
    """The former tree, to send the next one as differences to, and the next one, to be kept; either may be missing.

    Called by the threads that pack. Trouble with either never ends a capture.
    """

    def __init__(self, former: Reader | None = None, following: Writer | None = None) -> None:
        """Take both."""
        self._former = former
        self._following = following
        self._lock = threading.Lock()

    def delta(self, segment: Segment) -> SegmentDelta | None:
        """Return what `segment` has and the former segments of these paths have not; None where that is no use."""
        if self._former is None or len(segment.raw) > SEGMENT_RAW_BYTES:
            return None
        try:
            with self._lock:
                onto = self._former.around(first_path(segment.raw))
        except (OSError, IntegrityError):
            return None
        if not onto:
            return None
        frame = compress_onto(segment.raw, b"".join(raw for _, raw in onto))
        return SegmentDelta(tuple((name, len(raw)) for name, raw in onto), frame)

    def note(self, segment: Segment, stored: bytes) -> None:
        """Have the next capture know a segment."""
        with self._lock:
            if self._following is not None:
                try:
                    self._following.add(segment, stored)
                except OSError:
                    self._following = None

    def keep(self) -> None:
        """Put the tree of this capture in the place of the former one."""
        if self._following is not None:
            with suppress(OSError):
                self._following.finish()


class Reader:
    """A whole table of segments; each segment is checked when it is read."""

    def __init__(self, file: BinaryIO, table: list[_Kept]) -> None:
        """Take both; the table is in the order of the walk."""
        self._file = file
        self._table = table
        self._keys = [kept.key for kept in table]

    def around(self, path: bytes) -> list[tuple[bytes, bytes]]:
        """Return (digest, raw bytes) of the segment that has or would have `path`, and of the one after it.

        Raises IntegrityError for a damaged one, and OSError.
        """
        at = max(0, bisect_right(self._keys, walk_key(path)) - 1)
        chosen = [kept for kept in self._table[at : at + ONTO_MOST] if kept.raw_size <= SEGMENT_RAW_BYTES]
        return [(kept.digest, self._raw(kept)) for kept in chosen]

    def _raw(self, kept: _Kept) -> bytes:
        what = "a segment of the former tree"
        raw = decompress(os.pread(self._file.fileno(), kept.size, kept.offset), kept.raw_size, what)
        require_digest(raw, kept.digest, what)
        return raw


class Writer:
    """The next tree, beside the former one until it is whole."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        """Take the place it is for, and the new file from `create_beside`."""
        self._path = path
        self._file = file
        self._table: list[_Kept] = []
        file.write(_MAGIC)

    def add(self, segment: Segment, stored: bytes) -> None:
        """Take a segment, in any order. Raises OSError."""
        key = walk_key(first_path(segment.raw))
        self._table.append(_Kept(key, segment.ref.digest, segment.ref.raw_size, self._file.tell(), len(stored)))
        self._file.write(stored)

    def finish(self) -> None:
        """Put it in its place. Raises OSError."""
        table = _encode(sorted(self._table, key=lambda kept: kept.key))
        self._file.write(table + _END.pack(len(table), digest(table)))
        put_in_place(self._path, self._file)


def open_writer(path: Path, opened: ExitStack) -> Writer:
    """Return what keeps the next tree for `path`; raises OSError."""
    return Writer(path, create_beside(path, opened))


def open_reader(path: Path, opened: ExitStack) -> Reader:
    """Return the former tree at `path`; raises UnusableError, FileNotFoundError or another OSError."""
    file, size = open_own(path, opened)
    if size < len(_MAGIC) + _END.size or file.read(len(_MAGIC)) != _MAGIC:
        raise UnusableError("it is none")
    file.seek(size - _END.size)
    length, wanted = _END.unpack(file.read(_END.size))
    if length > min(size - _END.size, _TABLE_BYTES):
        raise UnusableError("it is damaged")
    file.seek(size - _END.size - length)
    data = file.read(length)
    try:
        table = _decode(data)
    except UNREADABLE:
        raise UnusableError("it is of another version of this program") from None
    if digest(data) != wanted:
        raise UnusableError("it is damaged")
    return Reader(file, table)
