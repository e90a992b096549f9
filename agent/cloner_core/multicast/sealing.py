"""Datagrams: sealed with AES-128-GCM, opened, and joined to runs.

The nonce is in the header: stream, sequence and subject. A key must never seal two datagrams with one sequence; so an
epoch has its own key, and a receiver's number is never given twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloner_core.image.digest import Bytes
from cloner_core.multicast.wire import (
    BURST_MOST,
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
_LARGEST_READ = 1 << 16
_BLOCKS, _SYNC = int(Kind.BLOCKS), int(Kind.SYNC)


@dataclass(slots=True)
class Rejects:
    """Datagrams that were dropped, by reason."""

    foreign: int = 0  # another version, session or epoch
    forged: int = 0  # the tag is wrong
    malformed: int = 0  # the tag is right, the content is not


class _Place(NamedTuple):
    """Where one datagram is in a room: as views, for to slice anew costs half of what is done with them."""

    at: int  # of the datagram in the sealed bytes
    head: memoryview
    nonce: memoryview
    body: memoryview  # with the tag
    plain_at: int
    plain: memoryview


class _Room:
    """Room for the datagrams of one burst, sealed and plain; used again for every burst."""

    def __init__(self, block_bytes: int) -> None:
        self.segment_bytes = block_bytes + OVERHEAD_BYTES
        size = max(_LARGEST_READ, BURST_MOST * self.segment_bytes)
        self.sealed, self.plain = bytearray(size), bytearray(size)
        self.sealed_view, self.plain_view = memoryview(self.sealed), memoryview(self.plain)
        self.blocks = [self.place(one, self.segment_bytes, self.segment_bytes) for one in range(BURST_MOST)]
        """The places of datagrams with a whole block each."""

    def place(self, number: int, segment_bytes: int, size: int) -> _Place:
        """Return the place of a datagram of `size` bytes that `number` others of `segment_bytes` come before."""
        at, plain_at = number * segment_bytes, number * (segment_bytes - OVERHEAD_BYTES)
        one = self.sealed_view[at : at + size]
        plain = self.plain_view[plain_at : plain_at + size - OVERHEAD_BYTES]
        return _Place(at, one[:4], one[4:16], one[16:], plain_at, plain)


class Sealer:
    """Makes the datagrams of one sender's epoch."""

    def __init__(self, key: bytes, stream: int, block_bytes: int) -> None:
        cipher = AESGCM(key)
        self._encrypt, self._encrypt_into = cipher.encrypt, cipher.encrypt_into
        self._stream = stream
        self._block_bytes = block_bytes
        self._room = _Room(block_bytes)

    @property
    def segment_bytes(self) -> int:
        """The size of each datagram of a run but the last: what UDP_SEGMENT is told."""
        return self._room.segment_bytes

    def seal(self, message: Message) -> Bytes:
        """Return the datagrams of `message`, one after the other; of a run at most BURST_MOST.

        They stay as they are until the next call.
        """
        if isinstance(message, Sync):
            return self._seal(Kind.SYNC, 0, message.sequence, 0, encode_sync(message))
        room, pack, encrypt, size = self._room, HEADER.pack_into, self._encrypt_into, self._block_bytes
        payload = memoryview(message.payload)
        whole = len(payload) // size
        room.plain[: whole * size] = payload[: whole * size]
        kind, stream, parcel, sealed = int(message.kind), self._stream, message.parcel, room.sealed
        index, sequence = message.first, message.sequence
        for at, head, nonce, body, _, plain in room.blocks[:whole]:
            pack(sealed, at, VERSION, kind, index & 0xFFFF, stream, sequence, parcel)
            encrypt(nonce, plain, head, body)
            index += 1
            sequence += 1
        found = room.sealed_view[: whole * room.segment_bytes]
        if whole == message.count:
            return found
        return b"".join((found, self._seal(message.kind, index, sequence, parcel, payload[whole * size :])))

    def _seal(self, kind: Kind, index: int, sequence: int, subject: int, payload: Bytes) -> bytes:
        header = HEADER.pack(VERSION, kind, index & 0xFFFF, self._stream, sequence, subject)
        return header + self._encrypt(header[4:], payload, header[:4])


class Opener:
    """Opens what a sender sealed, and drops everything else."""

    def __init__(self, key: bytes, stream: int, block_bytes: int) -> None:
        self._decrypt_into = AESGCM(key).decrypt_into
        self._stream = stream
        self._room = _Room(block_bytes)
        self.rejects = Rejects()

    def open(self, data: Bytes, segment_bytes: int) -> list[Message]:
        """Return what is in the datagrams of `segment_bytes` each (the last may be shorter) that `data` is made of.

        Blocks and combinations that follow each other come as one run.
        """
        messages: list[Message] = []
        rejects, plain_view, stream = self.rejects, self._room.plain_view, self._stream
        decrypt, unpack = self._decrypt_into, HEADER.unpack_from
        run_kind = run_parcel = run_first = run_sequence = run_at = run_end = count = 0
        for at, head, nonce, body, plain_at, plain in self._places(data, segment_bytes):
            version, kind, index, its_stream, sequence, subject = unpack(data, at)
            if its_stream != stream or version != VERSION or not _BLOCKS <= kind <= _SYNC:
                rejects.foreign += 1
                continue
            try:
                decrypt(nonce, body, head, plain)
            except InvalidTag:
                rejects.forged += 1
                continue
            if (
                count
                and sequence == run_sequence + count
                and index == run_first + count
                and subject == run_parcel
                and kind == run_kind
            ):
                run_end = plain_at + len(plain)
                count += 1
                continue
            if count:
                messages.append(
                    Run(Kind(run_kind), run_parcel, run_first, count, run_sequence, bytes(plain_view[run_at:run_end]))
                )
                count = 0
            if kind == _SYNC:
                sync = decode_sync(bytes(plain), sequence)
                if sync is None or index or subject:
                    rejects.malformed += 1
                else:
                    messages.append(sync)
                continue
            run_kind, run_parcel, run_first, run_sequence, count = kind, subject, index, sequence, 1
            run_at, run_end = plain_at, plain_at + len(plain)
        if count:
            messages.append(
                Run(Kind(run_kind), run_parcel, run_first, count, run_sequence, bytes(plain_view[run_at:run_end]))
            )
        return messages

    def _places(self, data: Bytes, segment_bytes: int) -> list[_Place]:
        """Lay the datagrams in the room, and return where each of them is."""
        room, end = self._room, len(data)
        room.sealed[:end] = data
        whole = min(end // segment_bytes, BURST_MOST) if segment_bytes == room.segment_bytes else 0
        found = room.blocks[:whole]
        for number in range(whole, -(-end // segment_bytes)):
            size = min(segment_bytes, end - number * segment_bytes)
            if size < OVERHEAD_BYTES:
                self.rejects.foreign += 1
            else:
                found.append(room.place(number, segment_bytes, size))
        return found


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
