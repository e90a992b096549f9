"""Takes the seat of a node in its multicast session: asks the server, waits, and begins to receive.

What it cannot have is said in words, and the packs come over HTTPS; only a server that contradicts itself is a failure.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from cloner_agent.addresses import interface_towards
from cloner_agent.failures import StageError
from cloner_agent.protocol import Server, ServerFault
from cloner_agent.restore.arrivals import Parcels
from cloner_core.errors import InvalidError, RefusedError, UnreachableError
from cloner_core.image.digest import parse_digest
from cloner_core.image.packmap import PackMap
from cloner_core.messages import Cause
from cloner_core.multicast.session import KEY_BYTES, VERSIONS, Parcel, Session
from cloner_core.seats import NoSeat, ParcelList, Seat, SeatLeft, SeatRequest
from cloner_core.sizes import format_bytes
from cloner_multicast import receiving
from cloner_multicast.feed import Feed, Join
from cloner_multicast.sockets import Group, is_link_local

log = logging.getLogger(__name__)

_LEAST_WINDOW = 4  # parcels: `Session` wants no less
_MEMORY_PART = 4  # of what is free, one part of so many is for parcels
_STEP_S = 0.5
_SOONEST_S = 0.2
_WHY_CHARACTERS = 200


def _free_bytes() -> int:
    import psutil

    return int(psutil.virtual_memory().available)


def _open(session: Session, group: Group, join: Join) -> Parcels:
    feed = Feed(session, group, join)
    feed.start()
    return feed


@dataclass(frozen=True, slots=True)
class Multicast:
    """What of the machine a seat needs, as seams."""

    open: Callable[[Session, Group, Join], Parcels] = _open
    interface: Callable[[str], str] = interface_towards
    free_bytes: Callable[[], int] = _free_bytes
    sleep: Callable[[float], None] = time.sleep


def take_seat(
    server: Server,
    version: str,
    pack_map: PackMap,
    machine: Multicast,
    tick: Callable[[str], None],
    *,
    booted_from: str = "",
) -> Parcels | str:
    """Return the session, begun, or why the node goes over HTTPS; `tick` is told what it waits for, and may raise.

    `booted_from` is the interface where senders are whose address means something on one link alone; "" not known.
    Raises StageError when what the server says of the session cannot be.
    """
    try:
        seat = _awaited_seat(server, machine.sleep, tick)
    except ServerFault as error:
        return error.message
    if isinstance(seat, str):
        return seat
    try:
        # Only now: whoever sends has made the list, which takes as long as to read the image.
        return _sit(server, seat, checked_parcels(server.parcels(version), pack_map), machine, booted_from)
    except (RefusedError, OSError) as error:
        why = f"multicast cannot be received: {error}"
        leave(server, SeatLeft(why, 0, heard=False))
        return why


def leave(server: Server, left: SeatLeft) -> None:
    """Tell the server, unless it cannot be told now: it finds out by itself."""
    try:
        server.seat_left(msgspec.structs.replace(left, why=left.why[:_WHY_CHARACTERS]))
    except (ServerFault, UnreachableError) as error:
        log.warning("the server was not told that the seat is free: %s", error)


def checked_parcels(listed: ParcelList, pack_map: PackMap) -> tuple[Parcel, ...]:
    """Return the parcels of a session; raises StageError (CORRUPT) when they cannot be those of these packs."""
    packs = pack_map.packs
    if not len(listed.digests) == len(listed.sizes) == len(packs):
        raise _corrupt(f"{len(listed.digests)} digests and {len(listed.sizes)} sizes for {len(packs)} packs")
    parcels = []
    for number, (digest, size, pack) in enumerate(zip(listed.digests, listed.sizes, packs, strict=True)):
        if size <= pack.stored_size:
            raise _corrupt(f"parcel {number} has {size} bytes, and its pack {pack.stored_size}")
        try:
            parcels.append(Parcel(parse_digest(digest), size))
        except InvalidError as error:
            raise _corrupt(f"parcel {number}: {error.message}") from error
    return tuple(parcels)


def _corrupt(what: str) -> StageError:
    return StageError(Cause.CORRUPT, f"the server's list of parcels does not fit the packs of the version: {what}")


def fitting_window(window: int, largest_bytes: int, free_bytes: int) -> int:
    """Return how many parcels a receiver may hold: as the session says, or fewer where memory is short.

    Raises RefusedError when that is too few to take part.
    """
    fitting = min(window, free_bytes // _MEMORY_PART // (2 * largest_bytes))  # as many combinations as blocks
    if fitting < _LEAST_WINDOW:
        need = format_bytes(_LEAST_WINDOW * 2 * largest_bytes * _MEMORY_PART)
        raise RefusedError(f"{format_bytes(free_bytes)} of memory are free, and parcels of this image need {need}")
    return fitting


def _awaited_seat(server: Server, sleep: Callable[[float], None], tick: Callable[[str], None]) -> Seat | str:
    while True:
        reply = server.seat(SeatRequest(VERSIONS))
        if isinstance(reply, NoSeat):
            return reply.why
        if isinstance(reply, Seat):
            return reply
        left_s = max(reply.again_s, _SOONEST_S)
        while left_s > 0:
            tick(reply.text)
            sleep(min(left_s, _STEP_S))
            left_s -= _STEP_S


def _sit(server: Server, seat: Seat, parcels: tuple[Parcel, ...], machine: Multicast, booted_from: str) -> Parcels:
    if seat.version not in VERSIONS:
        raise StageError(Cause.PROTOCOL, f"a seat in version {seat.version} of multicast; known: {VERSIONS}")
    try:
        interface = booted_from if is_link_local(seat.sender) else machine.interface(seat.sender)
        if not interface:
            raise RefusedError(f"the sender {seat.sender} is on the link this node booted from, which is not known")
        session = Session(seat.stream, parcels, seat.block_bytes, seat.window_parcels)
        group = Group(seat.group, seat.port, interface, seat.hops)
        joining = Joining(server, seat)
    except (InvalidError, ValueError) as error:
        raise StageError(Cause.PROTOCOL, f"the seat cannot be taken: {error}") from error
    window = fitting_window(session.window_parcels, max(parcel.size for parcel in parcels), machine.free_bytes())
    return machine.open(replace(session, window_parcels=window), group, joining)


class Joining:
    """Takes the seat the node was given, and asks for another when its epoch is silent; used where parcels arrive."""

    def __init__(self, server: Server, seat: Seat) -> None:
        """Raises InvalidError or ValueError for a seat that cannot be."""
        self._server = server
        self._seat = seat
        self._first: receiving.Seat | None = _taken(seat)

    def __call__(self, stream: int, is_heard: bool, /) -> receiving.Seat | str | None:
        """See `cloner_multicast.feed.Join`."""
        if (first := self._first) is not None:
            self._first = None
            return first
        try:
            reply = self._server.seat(SeatRequest(VERSIONS, stream, is_heard), patience_s=0)
        except UnreachableError:
            return None
        except (ServerFault, StageError) as error:
            return error.message
        if isinstance(reply, Seat):
            return self._next(reply)
        return reply.why if isinstance(reply, NoSeat) else None

    def _next(self, seat: Seat) -> receiving.Seat | str:
        if _fixed(seat) != _fixed(self._seat):
            return "the session goes on in another way, which this node cannot follow"
        try:
            return _taken(seat)
        except (InvalidError, ValueError) as error:
            return f"the seat in the next epoch cannot be taken: {error}"


def _fixed(seat: Seat) -> tuple[object, ...]:
    """Return what is the same in all epochs of a session."""
    return seat.version, seat.group, seat.port, seat.block_bytes


def _taken(seat: Seat) -> receiving.Seat:
    keys = bytes.fromhex(seat.group_key.value), bytes.fromhex(seat.own_key.value)
    if any(len(key) != KEY_BYTES for key in keys):
        raise InvalidError(f"a key of another length than {KEY_BYTES}")
    return receiving.Seat(seat.stream, seat.number, *keys, (seat.sender, seat.sender_port))
