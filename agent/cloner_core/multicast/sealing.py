"""Datagrams: sealed with AES-128-GCM, opened, and joined to runs.

The nonce is in the header: stream, sequence and subject. A key must never seal two datagrams with one sequence; so an
epoch has its own key, and a receiver's number is never given twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloner_core.multicast.wire import (
    HEADER,
    OVERHEAD_BYTES,
    VERSION,
    Kind,
    Report,
    Run,
    Sync,
    decode_report,
    decode_sync,
    encode_report,
    encode_sync,
)

Message = Run | Sync
_LARGEST_REPORT = 1472


@dataclass(slots=True)
class Rejects:
    """Datagrams that were dropped, by reason."""

    foreign: int = 0  # another version, session or epoch
    forged: int = 0  # the tag is wrong
    malformed: int = 0  # the tag is right, the content is not


class Sealer:
    """Makes the datagrams of one sender's epoch."""

    def __init__(self, key: bytes, stream: int, block_bytes: int) -> None:
        self._encrypt = AESGCM(key).encrypt
        self._stream = stream
        self._block_bytes = block_bytes

    @property
    def segment_bytes(self) -> int:
        """The size of each datagram of a run but the last: what UDP_SEGMENT is told."""
        return self._block_bytes + OVERHEAD_BYTES

    def seal(self, message: Message) -> bytes:
        """Return the datagrams of `message`, one after the other."""
        if isinstance(message, Sync):
            return self._seal(Kind.SYNC, 0, message.sequence, 0, encode_sync(message))
        if message.count == 1:
            return self._seal(message.kind, message.first, message.sequence, message.parcel, message.payload)
        encrypt, pack, size = self._encrypt, HEADER.pack, self._block_bytes
        kind, stream, parcel, payload = message.kind, self._stream, message.parcel, memoryview(message.payload)
        parts: list[bytes] = []
        sequence, at = message.sequence, 0
        for index in range(message.first, message.first + message.count):
            header = pack(VERSION, kind, index & 0xFFFF, stream, sequence, parcel)
            parts += (header, encrypt(header[4:], payload[at : at + size], header[:4]))
            sequence += 1
            at += size
        return b"".join(parts)

    def _seal(self, kind: Kind, index: int, sequence: int, subject: int, payload: bytes) -> bytes:
        header = HEADER.pack(VERSION, kind, index & 0xFFFF, self._stream, sequence, subject)
        return header + self._encrypt(header[4:], payload, header[:4])


class Opener:
    """Opens what a sender sealed, and drops everything else."""

    def __init__(self, key: bytes, stream: int) -> None:
        self._decrypt: Callable[[bytes, memoryview, bytes], bytes] = AESGCM(key).decrypt
        self._stream = stream
        self.rejects = Rejects()

    def open(self, data: bytes, segment_bytes: int) -> list[Message]:
        """Return what is in the datagrams of `segment_bytes` each (the last may be shorter) that `data` is made of.

        Blocks and combinations that follow each other come as one run.
        """
        messages: list[Message] = []
        parts: list[bytes] = []
        run_kind = run_parcel = run_first = run_sequence = count = 0
        view, end = memoryview(data), len(data)
        unpack, decrypt, stream = HEADER.unpack_from, self._decrypt, self._stream
        for at in range(0, end, segment_bytes):
            stop = min(at + segment_bytes, end)
            if stop - at < OVERHEAD_BYTES:
                self.rejects.foreign += 1
                continue
            version, kind, index, its_stream, sequence, subject = unpack(data, at)
            if its_stream != stream or version != VERSION or not Kind.BLOCKS <= kind <= Kind.SYNC:
                self.rejects.foreign += 1
                continue
            try:
                plain = decrypt(data[at + 4 : at + 16], view[at + 16 : stop], data[at : at + 4])
            except InvalidTag:
                self.rejects.forged += 1
                continue
            if (
                count
                and sequence == run_sequence + count
                and index == run_first + count
                and subject == run_parcel
                and kind == run_kind
            ):
                parts.append(plain)
                count += 1
                continue
            if count:
                messages.append(Run(Kind(run_kind), run_parcel, run_first, count, run_sequence, b"".join(parts)))
                count = 0
            if kind == Kind.SYNC:
                sync = decode_sync(plain, sequence)
                if sync is None or index or subject:
                    self.rejects.malformed += 1
                else:
                    messages.append(sync)
                continue
            run_kind, run_parcel, run_first, run_sequence, count, parts = kind, subject, index, sequence, 1, [plain]
        if count:
            messages.append(Run(Kind(run_kind), run_parcel, run_first, count, run_sequence, b"".join(parts)))
        return messages


class ReportSealer:
    """Makes the reports of one receiver."""

    def __init__(self, key: bytes, stream: int) -> None:
        self._encrypt = AESGCM(key).encrypt
        self._stream = stream

    def seal(self, report: Report) -> bytes:
        """Return the datagram of `report`."""
        header = HEADER.pack(VERSION, Kind.REPORT, 0, self._stream, report.counter, report.receiver)
        return header + self._encrypt(header[4:], encode_report(report), header[:4])


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
        version, kind, index, stream, counter, receiver = HEADER.unpack_from(data)
        cipher = None
        if stream == self._stream and version == VERSION and kind == Kind.REPORT and not index:
            cipher = self._cipher(receiver)
        if cipher is None:
            self.rejects.foreign += 1
            return None
        try:
            plain = cipher.decrypt(data[4:16], data[16:], data[:4])
        except InvalidTag:
            self.rejects.forged += 1
            return None
        report = decode_report(plain, receiver, counter)
        self.rejects.malformed += report is None
        return report

    def _cipher(self, receiver: int) -> AESGCM | None:
        cipher = self._ciphers.get(receiver)
        if cipher is None and (key := self._key_of(receiver)) is not None:
            cipher = self._ciphers[receiver] = AESGCM(key)
        return cipher
