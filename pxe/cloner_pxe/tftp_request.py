"""Reads TFTP's first datagram (RFC 1350 §5, RFC 2347, RFC 2348, RFC 2349).

Pure, total and bounded: whatever the bytes, a request, a refusal or nothing. What tftpy is handed afterwards was made
here anew, never what the network sent.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

# 1500 − IPv4 (20) − UDP (8) − TFTP (4): no fragments on Ethernet.
LARGEST_BLOCK = 1468
SMALLEST_BLOCK = 8
_LARGEST_REQUEST = 512  # RFC 2347 §3


class Opcode(IntEnum):
    READ = 1
    WRITE = 2
    DATA = 3
    ACK = 4
    ERROR = 5


class ErrorCode(IntEnum):
    NOT_FOUND = 1
    ACCESS = 2
    ILLEGAL = 4


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A wish to read; only the options this server grants."""

    name: str  # without leading slashes; printable ASCII
    block_bytes: int | None = None  # None when not asked: blocks of 512
    wants_size: bool = False

    def encode(self) -> bytes:
        """Return the datagram that says exactly this."""
        options = b"" if self.block_bytes is None else b"blksize\0%d\0" % self.block_bytes
        options += b"tsize\x000\0" if self.wants_size else b""
        return struct.pack("!H", Opcode.READ) + self.name.encode() + b"\0octet\0" + options


def read_request(datagram: bytes) -> ReadRequest | ErrorCode | None:
    """Return the request in `datagram`, the error to send for it, or None for what deserves no answer."""
    if not 4 <= len(datagram) <= _LARGEST_REQUEST:
        return None
    opcode = int.from_bytes(datagram[:2], "big")
    if opcode == Opcode.WRITE:
        return ErrorCode.ACCESS
    fields = datagram[2:].split(b"\0")
    if opcode != Opcode.READ or len(fields) < 3 or fields[1].lower() not in (b"octet", b"netascii"):
        return None
    name = fields[0].lstrip(b"/")
    if not all(32 < byte < 127 for byte in name):
        return ErrorCode.NOT_FOUND
    # The last piece is what follows the last NUL: nothing in a well-formed request.
    options = {key.lower(): value for key, value in zip(fields[2:-1:2], fields[3:-1:2], strict=False)}
    return ReadRequest(name.decode("ascii"), _block_bytes(options.get(b"blksize", b"")), b"tsize" in options)


def error(code: ErrorCode) -> bytes:
    """Return the datagram of an error."""
    text = {ErrorCode.NOT_FOUND: b"not found", ErrorCode.ACCESS: b"read only"}.get(code, b"illegal")
    return struct.pack("!HH", Opcode.ERROR, code) + text + b"\0"


def _block_bytes(value: bytes) -> int | None:
    if not (1 <= len(value) <= 5 and value.isdigit()) or int(value) < SMALLEST_BLOCK:
        return None
    return min(int(value), LARGEST_BLOCK)
