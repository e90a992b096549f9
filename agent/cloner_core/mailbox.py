"""Shared memory between processes: the latest value of one type, which nobody waits for.

Words packed into shared memory one by one are seen half-written by others, `struct` even fills them with zeros first.
"""

from __future__ import annotations

import mmap
import struct
from typing import Generic, TypeVar

import msgspec

from cloner_core.decoding import UNREADABLE

T = TypeVar("T", bound=msgspec.Struct)
_HEAD = struct.Struct("<QI")  # sequence (odd while being written), length
_TRIES = 1000


class Mailbox(Generic[T]):
    """The latest value of one type, written by one process at a time and read by others made by fork.

    A sequence lock: the writer makes the number odd, writes, makes it even; a reader that saw it change reads again.
    """

    def __init__(self, kind: type[T], first: T, size_bytes: int = 8192) -> None:
        self._decoder = msgspec.msgpack.Decoder(kind)
        self._encoder = msgspec.msgpack.Encoder()
        self._map = mmap.mmap(-1, size_bytes)
        self._room = size_bytes - _HEAD.size
        self._last = first
        self.put(first)

    def put(self, value: T) -> bool:
        """Replace the value; False when it does not fit, and the former one stays."""
        data = self._encoder.encode(value)
        if len(data) > self._room:
            return False
        sequence, _ = _HEAD.unpack_from(self._map, 0)  # as whoever wrote before has left it, maybe dead in the middle
        _HEAD.pack_into(self._map, 0, sequence | 1, len(data))
        self._map[_HEAD.size : _HEAD.size + len(data)] = data
        _HEAD.pack_into(self._map, 0, (sequence | 1) + 1, len(data))
        return True

    def get(self) -> T:
        """Return the latest whole value."""
        for _ in range(_TRIES):
            before, length = _HEAD.unpack_from(self._map, 0)
            data = self._map[_HEAD.size : _HEAD.size + min(length, self._room)]
            if before % 2 == 0 and _HEAD.unpack_from(self._map, 0) == (before, length):
                try:
                    self._last = self._decoder.decode(data)
                except UNREADABLE:
                    continue
                break
        # A writer that died in the middle leaves an odd number until another writes: the last whole value stands.
        return self._last
