"""Datagrams: proven, joined to runs, and what the two sides tell each other encrypted.

What a run carries was encrypted before, a parcel as one stream (`Content`), and its digest proves it when it is whole.
So only the headers are proven here, those of a burst in one call. Once bytes were altered on the wire the sender turns
*strict*: each datagram has a tag over all of it, at twice the cost.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from cloner_core.image.digest import Bytes
from cloner_core.multicast.session import derived_key
from cloner_core.multicast.wire import (
    HEADER,
    OVERHEAD_BYTES,
    PROOF_BYTES,
    TAGGED,
    VERSION,
    Kind,
    Report,
    Run,
    Sync,
    decode_report,
    decode_sync,
    encode_report,
    encode_sync,
    in_a_row,
)

Message = Run | Sync
_LARGEST_REPORT = 1472
_LAYOUTS_KEPT = 128
_SYNC = int(Kind.SYNC)
_UNTAGGED = (int(Kind.BLOCKS), int(Kind.COMBINATIONS))
_RUNS = (*_UNTAGGED, *(kind | TAGGED for kind in _UNTAGGED))


@dataclass(slots=True)
class Rejects:
    """Datagrams that were dropped, by reason."""

    foreign: int = 0  # another version, session or epoch
    forged: int = 0  # the proof is wrong
    malformed: int = 0  # the proof is right, the content is not


def _prover(group_key: bytes) -> Callable[[bytes], bytes]:
    """Return what gives the proofs of headers: each a block of AES, which nobody without the key can make.

    No header comes twice in an epoch, as its sequence does not.
    """
    return Cipher(AES(derived_key(group_key, "headers")), ECB()).encryptor().update


def _message_cipher(group_key: bytes) -> AESGCM:
    return AESGCM(derived_key(group_key, "messages"))


def _encrypt(cipher: AESGCM, header: bytes, content: bytes) -> bytes:
    """Return a datagram of what is told; its proof is the tag of AES-GCM."""
    sealed = cipher.encrypt(header[4:], content, header[:4])
    return b"".join((sealed[-PROOF_BYTES:], header, sealed[:-PROOF_BYTES]))


def _decrypt(cipher: AESGCM, header: bytes, proof: bytes, content: Bytes) -> bytes | None:
    """Return what is told in a datagram, None when it is forged."""
    try:
        return cipher.decrypt(header[4:], b"".join((content, proof)), header[:4])
    except InvalidTag:
        return None


@lru_cache(_LAYOUTS_KEPT)
def _heads(count: int, gap_bytes: int) -> struct.Struct:
    """Return what reads the proofs and headers, in turn, of datagrams with bodies of `gap_bytes`."""
    return struct.Struct(f"{PROOF_BYTES}s{HEADER.size}s" + f"{gap_bytes}x{PROOF_BYTES}s{HEADER.size}s" * (count - 1))


@lru_cache(_LAYOUTS_KEPT)
def _fields(count: int) -> struct.Struct:
    """Return what splits the proofs of so many datagrams, or the headers, which are as long."""
    return struct.Struct(f"{PROOF_BYTES}s" * count)


class Sealer:
    """Makes the datagrams of one sender's epoch."""

    def __init__(self, key: bytes, stream: int, block_bytes: int) -> None:
        """`key` is the group's."""
        self._prove = _prover(key)
        self._cipher = _message_cipher(key)
        self._stream = stream
        self._block_bytes = block_bytes
        self._is_strict = False

    @property
    def segment_bytes(self) -> int:
        """The size of each datagram of a run but the last: what UDP_SEGMENT is told."""
        return self._block_bytes + OVERHEAD_BYTES

    def seal(self, message: Message) -> bytes:
        """Return the datagrams of `message`, one after the other; from the first strict sync on, all have tags."""
        if isinstance(message, Sync):
            self._is_strict |= message.is_strict
            header = HEADER.pack(VERSION, _SYNC, 0, self._stream, message.sequence, 0)
            return _encrypt(self._cipher, header, encode_sync(message))
        count, size = message.count, self._block_bytes
        kind = message.kind | TAGGED if self._is_strict else message.kind
        first = HEADER.pack(VERSION, kind, message.first & 0xFFFF, self._stream, message.sequence, message.parcel)
        row, payload = in_a_row(first, count), memoryview(message.payload)
        split = _fields(count).unpack
        headers, bodies = split(row), [payload[at : at + size] for at in range(0, len(payload), size)]
        pieces: list[Bytes] = [b""] * (3 * count)
        pieces[::3] = self._tags(headers, bodies) if self._is_strict else split(self._prove(row))
        pieces[1::3] = headers
        pieces[2::3] = bodies
        return b"".join(pieces)

    def _tags(self, headers: Sequence[bytes], bodies: Sequence[Bytes]) -> list[bytes]:
        pairs = zip(headers, bodies, strict=True)
        return [self._cipher.encrypt(header[4:], b"", b"".join((header, body))) for header, body in pairs]


class _Row(NamedTuple):
    """Datagrams of one read whose headers follow each other."""

    proofs: bytes
    headers: bytes
    bodies: Sequence[memoryview]

    def singly(self) -> list[_Row]:
        split = _fields(len(self.bodies)).unpack
        return [
            _Row(proof, header, [body])
            for proof, header, body in zip(split(self.proofs), split(self.headers), self.bodies, strict=True)
        ]


class Opener:
    """Opens what a sender sealed, and drops everything else."""

    def __init__(self, key: bytes, stream: int) -> None:
        """`key` is the group's."""
        self._prove = _prover(key)
        self._cipher = _message_cipher(key)
        self._stream = stream
        self.is_strict = False
        """Whether only what has tags is taken, as the sender has said."""
        self.rejects = Rejects()

    def open(self, data: Bytes, segment_bytes: int) -> list[Message]:
        """Return what is in the datagrams of `segment_bytes` each (the last may be shorter) that `data` is made of.

        Blocks and combinations that follow each other come as one run.
        """
        count = -(-len(data) // segment_bytes)
        if len(data) - (count - 1) * segment_bytes < OVERHEAD_BYTES:  # the last of them, or all
            short = count if segment_bytes < OVERHEAD_BYTES else min(1, count)
            self.rejects.foreign += short
            count -= short
        if not count:
            return []
        found = _heads(count, segment_bytes - OVERHEAD_BYTES if count > 1 else 0).unpack_from(data)
        proofs, headers, view = b"".join(found[::2]), b"".join(found[1::2]), memoryview(data)
        bodies = [
            view[at + OVERHEAD_BYTES : at + segment_bytes] for at in range(0, count * segment_bytes, segment_bytes)
        ]
        messages: list[Message] = []
        at = 0
        while at < count:
            end = at + _length_of_row(headers[16 * at :])
            messages += self._open_row(_Row(proofs[16 * at : 16 * end], headers[16 * at : 16 * end], bodies[at:end]))
            at = end
        return messages

    def _open_row(self, row: _Row) -> list[Message]:
        version, kind, index, stream, sequence, subject = HEADER.unpack_from(row.headers)
        count = len(row.bodies)
        if version != VERSION or stream != self._stream or not (kind in _RUNS or kind == _SYNC):
            self.rejects.foreign += count
            return []
        if kind in _RUNS and (self._is_tagged(row) if kind & TAGGED else self._is_proven(row)):
            return [Run(Kind(kind & ~TAGGED), subject, index, count, sequence, b"".join(row.bodies))]
        if count > 1:
            return [message for single in row.singly() for message in self._open_row(single)]
        content = _decrypt(self._cipher, row.headers, row.proofs, row.bodies[0]) if kind == _SYNC else None
        if content is None:
            self.rejects.forged += 1
            return []
        sync = decode_sync(content, sequence)
        if sync is None or index or subject:
            self.rejects.malformed += 1
            return []
        self.is_strict |= sync.is_strict
        return [sync]

    def _is_proven(self, row: _Row) -> bool:
        return not self.is_strict and self._prove(row.headers) == row.proofs

    def _is_tagged(self, row: _Row) -> bool:
        try:
            for proof, header, (body,) in row.singly():
                self._cipher.decrypt(header[4:], proof, b"".join((header, body)))
        except InvalidTag:
            return False
        return True


def _length_of_row(headers: bytes) -> int:
    """Return how many of these headers, from the first, are those of one run."""
    first, count = headers[: HEADER.size], len(headers) // HEADER.size
    wanted = in_a_row(first, count)
    if headers == wanted:
        return count
    low, high = 1, count  # so many are, and so many are not
    while high - low > 1:
        middle = (low + high) // 2
        if headers.startswith(wanted[: middle * HEADER.size]):
            low = middle
        else:
            high = middle
    return low


class ReportSealer:
    """Makes the reports of one receiver."""

    def __init__(self, key: bytes, stream: int) -> None:
        self._cipher = AESGCM(key)
        self._stream = stream

    def seal(self, report: Report) -> bytes:
        """Return the datagram of `report`."""
        header = HEADER.pack(VERSION, Kind.REPORT, 0, self._stream, report.counter, report.receiver)
        return _encrypt(self._cipher, header, encode_report(report))


class ReportOpener:
    """Opens the reports of receivers that were given a number, and drops everything else."""

    def __init__(self, key_of: Callable[[int], bytes | None], stream: int) -> None:
        """`key_of` returns the key of a receiver, None for a number that was not given."""
        self._key_of = key_of
        self._stream = stream
        self._ciphers: dict[int, AESGCM] = {}
        self.rejects = Rejects()

    def open(self, data: bytes) -> Report | None:
        """Return the report in one datagram, or None."""
        if not OVERHEAD_BYTES <= len(data) <= _LARGEST_REPORT:
            self.rejects.foreign += 1
            return None
        proof, header = data[:PROOF_BYTES], data[PROOF_BYTES:OVERHEAD_BYTES]
        version, kind, index, stream, counter, receiver = HEADER.unpack(header)
        cipher = None
        if stream == self._stream and version == VERSION and kind == Kind.REPORT and not index:
            cipher = self._cipher(receiver)
        if cipher is None:
            self.rejects.foreign += 1
            return None
        content = _decrypt(cipher, header, proof, data[OVERHEAD_BYTES:])
        if content is None:
            self.rejects.forged += 1
            return None
        report = decode_report(content, receiver, counter)
        self.rejects.malformed += report is None
        return report

    def _cipher(self, receiver: int) -> AESGCM | None:
        cipher = self._ciphers.get(receiver)
        if cipher is None and (key := self._key_of(receiver)) is not None:
            cipher = self._ciphers[receiver] = AESGCM(key)
        return cipher
