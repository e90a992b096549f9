"""A small NBD server of ours: one export on a Unix socket, a disk that can lose its power behind it.

Fixed newstyle handshake, simple replies, as much as QEMU's client asks for. Requests are served one after the other,
so a flush covers what was answered before it and what arrived before it. Must not decide what a cut loses (`volatile`).
Source: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import logging
import random
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from vmlab.volatile import SECTOR_BYTES, FileMedium, Loss, VolatileDisk

log = logging.getLogger(__name__)

_GREETING = struct.pack("!8s8sH", b"NBDMAGIC", b"IHAVEOPT", 0b11)  # fixed newstyle, no zeroes
_OPTION = struct.Struct("!8sII")
_OPTION_REPLY = struct.Struct("!QIII")
_OPTION_REPLY_MAGIC = 0x3E889045565A9
_REQUEST = struct.Struct("!IHHQQI")
_REQUEST_MAGIC = 0x25609513
_REPLY = struct.Struct("!IIQ")
_REPLY_MAGIC = 0x67446698
_FORCED = 1  # NBD_CMD_FLAG_FUA
_HAS_FLAGS, _FLUSH, _FUA, _TRIM, _ZEROES = 1, 4, 8, 32, 64
_EXPORT_FLAGS = _HAS_FLAGS | _FLUSH | _FUA | _TRIM | _ZEROES
_MOST_BYTES = 32 << 20  # of one request
_LONGEST_OPTION_BYTES = 1 << 16


class Option(enum.IntEnum):
    """Options of the handshake that are answered."""

    EXPORT_NAME = 1
    ABORT = 2
    INFO = 6
    GO = 7


class _Answer(enum.IntEnum):
    ACK = 1
    INFO = 3
    UNSUPPORTED = (1 << 31) + 1


class Command(enum.IntEnum):
    """Requests."""

    READ = 0
    WRITE = 1
    DISCONNECT = 2
    FLUSH = 3
    TRIM = 4
    WRITE_ZEROES = 6


class _HungUpError(Exception):
    """The client is gone, or talks no NBD."""


class NbdDisk:
    """A disk over a file, for one machine; a context manager that serves it from a thread."""

    def __init__(self, file: Path, address: Path, *, is_lying: bool = False) -> None:
        """Take the file that holds what survives, and the path of the socket to listen on."""
        self.address = address
        self._medium = FileMedium(file)
        self._disk = VolatileDisk(self._medium, is_lying=is_lying)
        self._has_power = True
        self._is_closing = False
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._link: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, name=f"nbd {address.name}", daemon=True)

    def __enter__(self) -> Self:
        """Listen."""
        self.address.unlink(missing_ok=True)
        self._listener.bind(str(self.address))
        self._listener.listen(1)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the thread; what was not flushed is lost."""
        self._is_closing = True
        self._hang_up()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        self._medium.close()
        self.address.unlink(missing_ok=True)

    def power_off(self) -> None:
        """Take the power away: no request is served from now on, none is answered."""
        with self._lock:
            self._has_power = False

    def power_on(self, chance: random.Random, survival: float | None = None) -> Loss:
        """Serve what survived; the machine must have been killed before. The lost power is `power_off`'s."""
        self._hang_up()
        with self._lock:
            loss = self._disk.cut(chance, survival)
            self._has_power = True
        return loss

    def _hang_up(self) -> None:
        link = self._link
        if link is not None:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        while not self._is_closing:
            try:
                self._link, _ = self._listener.accept()
            except OSError:
                return
            with self._link as link:
                try:
                    if _shake_hands(link, self._disk.size_bytes):
                        self._answer_requests(link)
                except (_HungUpError, OSError) as fault:
                    log.debug("%s: %s", self.address.name, fault)

    def _answer_requests(self, link: socket.socket) -> None:
        while True:
            magic, flags, command, cookie, offset, length = _REQUEST.unpack(_receive(link, _REQUEST.size))
            if magic != _REQUEST_MAGIC or (length > _MOST_BYTES and command in (Command.READ, Command.WRITE)):
                raise _HungUpError("that is no request")
            data = _receive(link, length) if command == Command.WRITE else b""
            if command == Command.DISCONNECT:
                return
            with self._lock:
                if not self._has_power:
                    break
                error, answer = self._perform(command, offset, length, data, is_forced=bool(flags & _FORCED))
            link.sendall(_REPLY.pack(_REPLY_MAGIC, error, cookie) + answer)
        # Silence, not an error: a machine that heard of one might still tell somebody.
        while link.recv(1 << 16):
            pass

    def _perform(self, command: int, offset: int, length: int, data: bytes, *, is_forced: bool) -> tuple[int, bytes]:
        disk = self._disk
        does: dict[int, Callable[[], bytes | None]] = {
            Command.READ: lambda: disk.read(offset, length),
            Command.WRITE: lambda: disk.write(offset, data, is_forced=is_forced),
            Command.FLUSH: disk.flush,
            Command.TRIM: lambda: disk.zero(offset, length, is_forced=is_forced),
            Command.WRITE_ZEROES: lambda: disk.zero(offset, length, is_forced=is_forced),
        }
        try:
            return 0, (does[command]() or b"")
        except (KeyError, ValueError):
            return errno.EINVAL, b""


def _shake_hands(link: socket.socket, size_bytes: int) -> bool:
    """Agree on the export; return whether requests follow."""
    link.sendall(_GREETING)
    _receive(link, 4)  # the client's flags
    while True:
        magic, option, length = _OPTION.unpack(_receive(link, _OPTION.size))
        if magic != b"IHAVEOPT" or length > _LONGEST_OPTION_BYTES:
            raise _HungUpError("that is no option")
        _receive(link, length)
        if option == Option.EXPORT_NAME:
            link.sendall(struct.pack("!QH", size_bytes, _EXPORT_FLAGS))
            return True
        if option in (Option.INFO, Option.GO):
            export = struct.pack("!HQH", 0, size_bytes, _EXPORT_FLAGS)
            blocks = struct.pack("!HIII", 3, SECTOR_BYTES, 4096, _MOST_BYTES)
            link.sendall(_reply(option, _Answer.INFO, export) + _reply(option, _Answer.INFO, blocks))
        is_known = option in list(Option)
        link.sendall(_reply(option, _Answer.ACK if is_known else _Answer.UNSUPPORTED))
        if option in (Option.GO, Option.ABORT):
            return bool(option == Option.GO)


def _reply(option: int, kind: _Answer, data: bytes = b"") -> bytes:
    return _OPTION_REPLY.pack(_OPTION_REPLY_MAGIC, option, kind, len(data)) + data


def _receive(link: socket.socket, length: int) -> bytes:
    """Return exactly `length` bytes; raises _HungUpError when the client leaves before."""
    received = bytearray()
    while len(received) < length:
        piece = link.recv(length - len(received))
        if not piece:
            raise _HungUpError("the client left")
        received += piece
    return bytes(received)
