"""The cable between a simulated machine and its server: a relay in a process of its own that can be cut, or lie."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import signal
import socket
import ssl
import time
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

_LOOK_S = 0.005
_APPLIED_S = 10.0


class Mode(IntEnum):
    """What becomes of a connection; a change ends those that stand."""

    OPEN = 0
    CUT = 1  # no route: refused at once
    BROKEN = 2  # the right certificate, and status 500 for everything
    GARBAGE = 3  # the right certificate, and 200 with bytes that mean nothing


_ANSWERS = {
    Mode.BROKEN: b"HTTP/1.1 500 Broken\r\nContent-Length: 4\r\nConnection: close\r\n\r\noops",
    Mode.GARBAGE: b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\n\x00garbage\xff",
}


@dataclass
class Wire:
    """A relay to `upstream` on loopback; `certificate` and `key` are those of the server it can stand in for."""

    upstream: int
    certificate: Path
    key: Path
    port: int = 0
    _pid: int = 0
    _shared: mmap.mmap = field(default_factory=lambda: mmap.mmap(-1, 3))  # wanted mode, mode in force, met
    _was_bad: bool = False

    def start(self) -> None:
        """Begin to relay."""
        listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(listening.getsockname()[1])
        self._pid = os.fork()
        if self._pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            with contextlib.suppress(BaseException):
                asyncio.run(self._relay(listening))
            os._exit(0)
        listening.close()

    def stop(self) -> None:
        """End the relay."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0

    @property
    def mode(self) -> Mode:
        """What the cable does now."""
        return Mode(self._shared[0])

    def set(self, mode: Mode) -> None:
        """Change what the cable does; returns when it does."""
        self._was_bad |= mode is not Mode.OPEN
        self._shared[0] = mode
        deadline = time.monotonic() + _APPLIED_S
        while self._shared[1] != mode:
            assert time.monotonic() < deadline, "the relay is gone"
            time.sleep(_LOOK_S)

    @property
    def was_unmet(self) -> bool:
        """Whether it did something else than to relay, and nobody was there to meet it."""
        return self._was_bad and not self._shared[2]

    def meet(self) -> None:
        """Note that somebody met what the cable does."""
        self._shared[2] = 1

    async def _relay(self, listening: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        false = await asyncio.start_server(self._lie, "127.0.0.1", 0, ssl=context)
        false_port = int(false.sockets[0].getsockname()[1])
        open_ones: set[asyncio.StreamWriter] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            mode = self.mode
            if mode is not Mode.OPEN:
                self.meet()
            if mode is Mode.CUT:
                writer.transport.abort()
                return
            with contextlib.suppress(OSError):
                port = self.upstream if mode is Mode.OPEN else false_port
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
                ends = {writer, far_writer}
                open_ones.update(ends)
                try:
                    await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
                finally:
                    open_ones.difference_update(ends)
                    for end in ends:
                        end.transport.abort()
            writer.transport.abort()

        async with await asyncio.start_server(connected, sock=listening):
            parent = os.getppid()
            while os.getppid() == parent:
                if self._shared[1] != self._shared[0]:
                    for writer in list(open_ones):
                        writer.transport.abort()
                    self._shared[1] = self._shared[0]
                await asyncio.sleep(_LOOK_S)

    async def _lie(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(_ANSWERS.get(self.mode, b""))
            await writer.drain()
        writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while block := await reader.read(1 << 16):
            writer.write(block)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.transport.abort()  # or the other end would wait for an answer that nobody has
