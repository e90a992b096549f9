"""Shared memory between the working process and the heartbeat: the latest value each way, and a queue of log lines.

Nothing here may block the worker: a value is overwritten, a log line that does not fit is dropped and counted.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import mmap
import os
import struct
import time
from typing import Generic, TypeVar

import msgspec

from cloner_core.decoding import UNREADABLE
from cloner_core.messages import LogLine

T = TypeVar("T", bound=msgspec.Struct)
_HEAD = struct.Struct("<QI")  # sequence (odd while being written), length
_TRIES = 1000
_FRAME = struct.Struct("<H")
_LINE_BYTES = 3000
_QUEUE_BYTES = 1 << 20


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


class LogQueue(logging.Handler):
    """Carries log records to the heartbeat; records are dropped, and counted, rather than waited for.

    A pipe, because a write of at most PIPE_BUF (4096) bytes is whole or not at all: pipe(7).
    """

    def __init__(self, level: int = logging.INFO) -> None:
        super().__init__(level)
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.fcntl(self._writer, fcntl.F_SETPIPE_SZ, _QUEUE_BYTES)
        self._dropped = 0
        self._pending = b""

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record's text, cut to 3000 bytes."""
        text = record.getMessage().encode(errors="replace")[:_LINE_BYTES].decode(errors="ignore")
        if self._dropped:
            text += f" [{self._dropped} lines before this one were dropped]"
        line = msgspec.msgpack.encode(LogLine(time_s=time.time(), level=record.levelname.lower(), text=text))
        try:
            os.write(self._writer, _FRAME.pack(len(line)) + line)
            self._dropped = 0
        except OSError:
            self._dropped += 1

    def drain(self, limit: int) -> list[LogLine]:
        """Take at most `limit` waiting lines."""
        with contextlib.suppress(BlockingIOError):
            self._pending += os.read(self._reader, _QUEUE_BYTES)
        lines: list[LogLine] = []
        while len(lines) < limit and len(self._pending) >= _FRAME.size:
            end = _FRAME.size + _FRAME.unpack_from(self._pending)[0]
            lines.append(msgspec.msgpack.decode(self._pending[_FRAME.size : end], type=LogLine))
            self._pending = self._pending[end:]
        return lines
