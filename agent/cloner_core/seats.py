"""What agent and server say of multicast: waiting for a session, and a seat in one (docs/multicast-sessions.md)."""

from __future__ import annotations

import struct
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from cloner_core.errors import InvalidError
from cloner_core.facts import Facts
from cloner_core.image.digest import Bytes
from cloner_core.messages import Secret, Strict

CHECK_IN_S = 30.0
"""How often a node that waits says so; it is answered earlier when it is called."""
HELD_S = 25.0
"""How long the server holds a check-in before it answers that there is nothing yet."""
_PLACEMENT = struct.Struct(">I")


class WaitHello(Strict, frozen=True):
    """First message of an agent that was booted by netboot `cloner-multicast` without a task."""

    protocol: int
    agent_version: str
    claim: str
    public_key: str  # hex, Ed25519: a repeated request is known by it
    facts: Facts
    link_mbps: int = 0  # of the interface it booted from; 0 not known


class CheckIn(Strict, frozen=True):
    """The node still waits. Held by the server for `HELD_S`, answered at once when the node is called."""

    claim: str
    public_key: str


class WaitReply(Strict, frozen=True):
    """What a node that waits is to do."""

    order: Literal["wait", "go", "leave"]
    node: str
    text: str = ""  # for its screen: what it waits for, or why it is to leave
    claim: Secret | None = None  # with "go": of the node's task, good for the hello of a deploy
    server_time_s: float = 0.0


class SeatRequest(Strict, frozen=True):
    """A node that could receive now wants to; repeated when it has heard nothing for a while."""

    versions: tuple[int, ...]  # of the multicast protocol it speaks, the best first
    stream: int = 0  # the epoch it was in; 0 none
    heard: bool = False  # whether anything valid was heard in that epoch


class Seat(Strict, frozen=True, tag_field="seat", tag="taken"):
    """A place in the epoch that is sent, or about to be."""

    version: int  # of the multicast protocol
    stream: int
    number: int  # of the receiver; never given twice in an epoch
    group_key: Secret  # hex, KEY_BYTES
    own_key: Secret  # hex, KEY_BYTES
    group: str  # IPv4 or IPv6
    port: int
    sender: str  # address that reports go to
    sender_port: int
    hops: int
    block_bytes: int
    window_parcels: int


class SeatLater(Strict, frozen=True, tag_field="seat", tag="later"):
    """There is none yet (the session is queued, or its sender starts): ask again."""

    text: str
    again_s: float = 1.0


class NoSeat(Strict, frozen=True, tag_field="seat", tag="none"):
    """The node takes what it misses over HTTPS."""

    why: str


SeatReply = Seat | SeatLater | NoSeat


class SeatLeft(Strict, frozen=True):
    """The node goes on over HTTPS, or has everything."""

    why: Annotated[str, Meta(max_length=200)]  # "" when it has everything
    parcels: int  # that came by multicast
    loss: float = 0.0  # at the end, 0 to 1
    forged: int = 0
    heard: bool = True  # whether anything valid was heard in the last epoch


class ParcelList(Strict, frozen=True):
    """The parcels of a version: pack by pack in the order of its map, each behind its placement record."""

    digests: tuple[str, ...]  # hex, BLAKE3 of a parcel's bytes
    sizes: tuple[int, ...]


def make_parcel(placement: Bytes, pack: Bytes) -> bytes:
    """Return a parcel: u32 length of the placement record, the record, the pack as it is stored."""
    return b"".join((parcel_head(placement), pack))


def parcel_head(placement: Bytes) -> bytes:
    """Return what comes before the pack in a parcel."""
    return _PLACEMENT.pack(len(placement)) + placement


def split_parcel(parcel: memoryview) -> tuple[memoryview, memoryview]:
    """Return (stored bytes of the pack, placement record) of `make_parcel`; raises InvalidError for other bytes."""
    if len(parcel) < _PLACEMENT.size:
        raise InvalidError(f"a parcel of {len(parcel)} bytes is too short")
    (size,) = _PLACEMENT.unpack_from(parcel)
    if size > len(parcel) - _PLACEMENT.size:
        raise InvalidError(f"a parcel of {len(parcel)} bytes cannot begin with a record of {size}")
    return parcel[_PLACEMENT.size + size :], parcel[_PLACEMENT.size : _PLACEMENT.size + size]


def decode_seat(data: bytes) -> Seat | SeatLater | NoSeat:
    """Return the answer to a SeatRequest; raises msgspec's errors."""
    return msgspec.json.decode(data, type=Seat | SeatLater | NoSeat)
