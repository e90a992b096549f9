"""The seal of an export: a passphrase through scrypt, AES-256-GCM over pieces in a row (docs/state-export.md).

The construction is STREAM (Hoang, Reyhanitabar, Rogaway, Vizár: Online Authenticated-Encryption and its Nonce-Reuse
Misuse-Resistance, 2015, §7): the nonce of a piece holds its number and whether it is the last, so that pieces left out,
doubled, exchanged or cut off do not open. What is read from here was authentic, but only `finish` says it was all.
Knows nothing of what is sealed.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
import unicodedata
from dataclasses import dataclass, field
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloner_core.errors import IntegrityError, InvalidError, RefusedError

MAGIC = b"CLNSTATE"
FORMAT = 1
SALT_BYTES = 16
PIECE_BYTES = 1 << 20
MIN_PASSPHRASE = 12
"""In characters: whoever finds the file can guess for as long as he likes, and it holds the keys of every node."""

_FIXED = struct.Struct(">8sBBBBI16s")  # magic, format, log2 N, r, p, bytes of a piece, salt
_CHECK_BYTES = 16
HEADER_BYTES = _FIXED.size + _CHECK_BYTES
_TAG_BYTES = 16
_MOST_P = 4
_MOST_MEMORY = 1 << 30  # a strange file must not eat the machine, and OpenSSL takes less than 2 GiB
_MOST_PIECE = 64 << 20


@dataclass(frozen=True, slots=True)
class Cost:
    """What one guess of the passphrase costs (RFC 7914): 128 MiB of memory and about half a second by default."""

    log_n: int = 17
    r: int = 8
    p: int = 1


def passphrase_bytes(text: str) -> bytes:
    """Return what is hashed of a passphrase: UTF-8 of its composed form, so that it is the same on every keyboard."""
    return unicodedata.normalize("NFC", text).encode()


def require_strong(text: str) -> None:
    """Raise InvalidError for a passphrase that is too short to seal with."""
    if len(text) < MIN_PASSPHRASE:
        raise InvalidError(f"the passphrase has {len(text)} characters, at least {MIN_PASSPHRASE} are wanted")


DEFAULT_COST = Cost()


@dataclass(slots=True)
class SealedWriter:
    """Takes content by `write`, puts sealed pieces into `file`; `close` writes the last one and leaves `file` open."""

    file: BinaryIO
    header: bytes
    _cipher: AESGCM = field(repr=False)
    _piece_bytes: int
    _waiting: bytearray = field(default_factory=bytearray)
    _number: int = 0

    def write(self, data: bytes) -> int:
        """Seal `data`; the last piece waits, for whether it is the last is sealed with it."""
        self._waiting += data
        start = 0
        while len(self._waiting) - start > self._piece_bytes:
            self._put(self._waiting[start : start + self._piece_bytes], is_last=False)
            start += self._piece_bytes
        del self._waiting[:start]
        return len(data)

    def close(self) -> None:
        """Write the last piece."""
        self._put(self._waiting, is_last=True)
        self._waiting.clear()

    def _put(self, piece: bytearray, *, is_last: bool) -> None:
        self.file.write(self._cipher.encrypt(_nonce(self._number, is_last), bytes(piece), self.header))
        self._number += 1


def open_writer(
    file: BinaryIO, passphrase: bytes, salt: bytes, cost: Cost, piece_bytes: int = PIECE_BYTES
) -> SealedWriter:
    """Write the header and return what takes the content; `salt` (16 random bytes) must be new for every file."""
    fixed = _FIXED.pack(MAGIC, FORMAT, cost.log_n, cost.r, cost.p, piece_bytes, salt)
    cipher, check = _keys(passphrase, salt, cost, fixed)
    file.write(fixed + check)
    return SealedWriter(file, fixed + check, cipher, piece_bytes)


@dataclass(slots=True)
class SealedReader:
    """Gives content by `read`, piece by piece, none before it was found authentic."""

    file: BinaryIO
    header: bytes
    _cipher: AESGCM = field(repr=False)
    _piece_bytes: int
    _ahead: bytes = b""  # read beyond the present piece, to know whether it is the last
    _content: bytes = b""
    _at: int = 0
    _number: int = 0
    _is_over: bool = False

    def read(self, size: int = -1) -> bytes:
        """Return `size` bytes of content, all that is left with -1, fewer at its end.

        Raises IntegrityError for a piece that was altered, moved or cut.
        """
        parts, wanted = [], size if size >= 0 else 1 << 62
        while wanted:
            if self._at == len(self._content):
                if self._is_over:
                    break
                self._next()
                continue
            part = self._content[self._at : self._at + wanted]
            self._at += len(part)
            wanted -= len(part)
            parts.append(part)
        return b"".join(parts)

    def finish(self) -> None:
        """Read to the end, which makes sure that nothing was cut off; raises IntegrityError as `read` does."""
        while self.read(self._piece_bytes):
            pass

    def _next(self) -> None:
        stored_bytes = self._piece_bytes + _TAG_BYTES
        stored = self._ahead + self.file.read(stored_bytes + 1 - len(self._ahead))
        stored, self._ahead = stored[:stored_bytes], stored[stored_bytes:]
        is_last = not self._ahead
        try:
            self._content = self._cipher.decrypt(_nonce(self._number, is_last), stored, self.header)
        except (InvalidTag, ValueError) as fault:
            raise self._fault(stored, is_last) from fault
        self._at, self._is_over = 0, is_last
        self._number += 1

    def _fault(self, stored: bytes, is_last: bool) -> IntegrityError:
        where = HEADER_BYTES + self._number * (self._piece_bytes + _TAG_BYTES)
        what = f"piece {self._number + 1} (from byte {where} on) is damaged"
        if is_last:
            what = f"it is cut off, or {what}"
            try:
                self._cipher.decrypt(_nonce(self._number, False), stored, self.header)
                what = f"it is cut off after byte {where + len(stored)}"
            except (InvalidTag, ValueError):
                pass
        return IntegrityError(f"the export cannot be used: {what}", hint="take another copy of it")


def open_reader(file: BinaryIO, passphrase: bytes) -> SealedReader:
    """Read the header and return what gives the content.

    Raises InvalidError when it is no export, RefusedError when it is of a newer form or the passphrase is wrong.
    """
    header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES or not header.startswith(MAGIC):
        raise InvalidError("it is not an export of Cloner's state, or it is cut off in its first bytes")
    fixed, check = header[: _FIXED.size], header[_FIXED.size :]
    _, form, log_n, r, p, piece_bytes, salt = _FIXED.unpack(fixed)
    if form != FORMAT:
        raise RefusedError(f"the export has form {form}, this program knows {FORMAT}", hint="use a newer Cloner")
    cost = Cost(log_n, r, p)
    is_sane = 0 < log_n < 32 and r > 0 and 0 < p <= _MOST_P and 0 < piece_bytes <= _MOST_PIECE
    if not is_sane or _memory(cost) > _MOST_MEMORY:
        raise IntegrityError("the export cannot be used: its header is damaged", hint="take another copy of it")
    cipher, expected = _keys(passphrase, salt, cost, fixed)
    if not hmac.compare_digest(check, expected):
        raise RefusedError("the passphrase is wrong, or the first 48 bytes of the export were altered")
    return SealedReader(file, header, cipher, piece_bytes)


def _keys(passphrase: bytes, salt: bytes, cost: Cost, fixed: bytes) -> tuple[AESGCM, bytes]:
    """Return the cipher, and what the header ends with: proof of the passphrase and of the header."""
    n, most = 1 << cost.log_n, _memory(cost)
    derived = hashlib.scrypt(passphrase, salt=salt, n=n, r=cost.r, p=cost.p, maxmem=most, dklen=64)
    return AESGCM(derived[:32]), hmac.digest(derived[32:], fixed, "sha256")[:_CHECK_BYTES]


def _memory(cost: Cost) -> int:
    """Return how many bytes one guess takes, with something to spare."""
    return 128 * cost.r * ((1 << cost.log_n) + cost.p + 2) + (1 << 20)


def _nonce(number: int, is_last: bool) -> bytes:
    return number.to_bytes(11) + bytes([is_last])
