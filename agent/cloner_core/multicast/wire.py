"""The messages of the multicast protocol, their headers, and their bytes before they are sealed.

Decoders are total: whatever the bytes, a message or None. Who may say what is not decided here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from functools import lru_cache
from typing import Any

from cloner_core.image.digest import Bytes

VERSION = 2
PROOF_BYTES = 16
HEADER = struct.Struct("!BBHIII")  # version, kind, index, stream, sequence, subject; after the proof
OVERHEAD_BYTES = PROOF_BYTES + HEADER.size
TAGGED = 0x80
"""In the kind of blocks and combinations: the proof is a tag over all of the datagram, not only over its header."""
BURST_MOST = 44
"""Datagrams of one UDP_SEGMENT send: 44 × 1472 is below 64 KiB."""

REPAIRS_MOST = 64
RANGES_MOST = 16
POLLS_MOST = 32
LEAVINGS_MOST = 32
ROOM_MOST = 255

_ONE_MORE = int.from_bytes(HEADER.pack(0, 0, 1, 0, 1, 0), "big")
_ROWS_KEPT = 64
_SYNC = struct.Struct("!IBBBHIBBBB")  # clock, phase, strict, room, backoff, crowd, how many of each list
_REPORT = struct.Struct("!IIBxHHIBB")  # clock, acked, flags, loss, room, done, how many of each list
_REPAIR = struct.Struct("!IHH")
_RANGE = struct.Struct("!II")
_POLL = struct.Struct("!IH")
_LEAVING = struct.Struct("!IB")
_NEED = struct.Struct("!IH")


class Kind(IntEnum):
    BLOCKS = 1
    COMBINATIONS = 2
    SYNC = 3
    REPORT = 4


class Phase(IntEnum):
    SENDING = 0
    FINISHING = 1  # everything was sent; who misses something says so when polled
    OVER = 2


class Flag(IntFlag):
    DONE = 1  # every parcel is there
    POLLED = 2  # the report answers a poll
    ALTERED = 4  # bytes were altered on their way here


@dataclass(frozen=True, slots=True)
class Run:
    """Datagrams of one kind with numbers in a row: blocks of a parcel, or combinations of its blocks."""

    kind: Kind  # BLOCKS or COMBINATIONS
    parcel: int
    first: int  # number of the first block or combination
    count: int
    sequence: int  # of the first datagram
    payload: Bytes  # all of the same size, but the last block of a parcel may be shorter


@dataclass(frozen=True, slots=True)
class Sync:
    """What the sender tells about itself, so that nobody asks for what is on its way."""

    sequence: int
    clock_ms: int
    phase: Phase
    backoff_ms: int
    """Within how long after it a report that was not asked for is to be sent."""
    crowd: int
    """How many receivers there are."""
    repairs: tuple[tuple[int, int, int], ...] = ()
    """(parcel, combinations sent, combinations to be sent) of each parcel whose blocks have been sent."""
    plan: tuple[tuple[int, int], ...] = ()
    """(first, count) of parcels of which blocks are still to be sent, the one being sent included."""
    polls: tuple[tuple[int, int], ...] = ()
    """(first, count) of receivers that are to report at once."""
    leavings: tuple[tuple[int, int], ...] = ()
    """(receiver, reason) of those no longer served."""
    room: int = ROOM_MOST
    """The least room that a receiver was heard to have just now, ROOM_MOST for more and for unknown."""
    is_strict: bool = False
    """Whether blocks and combinations are tagged from here on, and others not the sender's."""


@dataclass(frozen=True, slots=True)
class Report:
    """What one receiver tells the sender."""

    receiver: int
    counter: int  # rises with every report of a receiver
    clock_ms: int
    """Of the last sync it has seen."""
    acked: int
    """The highest sequence it has seen."""
    flags: Flag
    loss: float
    room: int
    """How many more parcels it could begin."""
    done: int
    """How many parcels it has."""
    needs: tuple[tuple[int, int], ...] = ()
    """(parcel, how many combinations must have been sent until this receiver has it)."""
    wants: tuple[tuple[int, int], ...] = ()
    """(first, count) of parcels whose blocks it wants sent again."""


def in_a_row(first: bytes, count: int) -> bytes:
    """Return the headers of `count` datagrams of a run: index and sequence rise by one from those of the `first`."""
    if count == 1:
        return first
    repeat, rise = _row(count)
    return (int.from_bytes(first, "big") * repeat + rise).to_bytes(count * HEADER.size, "big")


@lru_cache(_ROWS_KEPT)
def _row(count: int) -> tuple[int, int]:
    """Return by what a header is multiplied, and what is added, to have `count` of them: one number is a whole run."""
    places = [8 * HEADER.size * (count - 1 - one) for one in range(count)]
    return sum(1 << at for at in places), sum(one * _ONE_MORE << at for one, at in enumerate(places))


def encode_sync(sync: Sync) -> bytes:
    """Return the payload of `sync`; its sequence is in the header."""
    return b"".join(
        (
            _SYNC.pack(
                sync.clock_ms & 0xFFFFFFFF,
                sync.phase,
                sync.is_strict,
                sync.room,
                sync.backoff_ms,
                sync.crowd,
                len(sync.repairs),
                len(sync.plan),
                len(sync.polls),
                len(sync.leavings),
            ),
            *(_REPAIR.pack(*repair) for repair in sync.repairs),
            *(_RANGE.pack(*one) for one in sync.plan),
            *(_POLL.pack(*poll) for poll in sync.polls),
            *(_LEAVING.pack(*leaving) for leaving in sync.leavings),
        )
    )


def decode_sync(payload: bytes, sequence: int) -> Sync | None:
    """Return the sync in `payload`, or None."""
    if len(payload) < _SYNC.size:
        return None
    clock_ms, phase, strict, room, backoff_ms, crowd, *counts = _SYNC.unpack_from(payload)
    lists = _read_lists(payload, _SYNC.size, counts, (_REPAIR, _RANGE, _POLL, _LEAVING))
    if phase > Phase.OVER or strict > 1 or lists is None or _exceeds(counts, _SYNC_MOST):
        return None
    repairs, plan, polls, leavings = lists
    return Sync(sequence, clock_ms, Phase(phase), backoff_ms, crowd, repairs, plan, polls, leavings, room, bool(strict))


_FLAGS_ALL = Flag.DONE | Flag.POLLED | Flag.ALTERED
_SYNC_MOST = (REPAIRS_MOST, RANGES_MOST, POLLS_MOST, LEAVINGS_MOST)
_REPORT_MOST = (REPAIRS_MOST, RANGES_MOST)


def encode_report(report: Report) -> bytes:
    """Return the payload of `report`; its receiver and counter are in the header."""
    return b"".join(
        (
            _REPORT.pack(
                report.clock_ms,
                report.acked,
                report.flags,
                round(report.loss * 0xFFFF),
                report.room,
                report.done,
                len(report.needs),
                len(report.wants),
            ),
            *(_NEED.pack(*need) for need in report.needs),
            *(_RANGE.pack(*want) for want in report.wants),
        )
    )


def decode_report(payload: bytes, receiver: int, counter: int) -> Report | None:
    """Return the report in `payload`, or None."""
    if len(payload) < _REPORT.size:
        return None
    clock_ms, acked, flags, loss, room, done, *counts = _REPORT.unpack_from(payload)
    lists = _read_lists(payload, _REPORT.size, counts, (_NEED, _RANGE))
    if flags > _FLAGS_ALL or payload[9] or lists is None or _exceeds(counts, _REPORT_MOST):
        return None
    needs, wants = lists
    return Report(receiver, counter, clock_ms, acked, Flag(flags), loss / 0xFFFF, room, done, needs, wants)


def _exceeds(counts: Iterable[int], most: Iterable[int]) -> bool:
    return any(count > limit for count, limit in zip(counts, most, strict=True))


def _read_lists(payload: bytes, at: int, counts: list[int], kinds: tuple[struct.Struct, ...]) -> list[Any] | None:
    """Return the lists that fill the rest of `payload` exactly, or None."""
    if len(payload) != at + sum(count * kind.size for count, kind in zip(counts, kinds, strict=True)):
        return None
    lists: list[tuple[Any, ...]] = []
    for count, kind in zip(counts, kinds, strict=True):
        end = at + count * kind.size
        lists.append(tuple(kind.iter_unpack(payload[at:end])))
        at = end
    return lists
