"""The queue of log lines between the working process and the heartbeat.

It may not block the worker: a line that does not fit is dropped and counted.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import struct
import time

import msgspec

from cloner_core.messages import LogLine

_FRAME = struct.Struct("<H")
_LINE_BYTES = 3000
_QUEUE_BYTES = 1 << 20


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
