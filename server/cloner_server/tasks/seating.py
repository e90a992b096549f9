"""Seats in a session: who gets one, who leaves it, when a session begins and when it has ended.

Nothing here talks to a sender: what it is to be told comes out as a value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
from sqlalchemy import Connection

from cloner_core.admin.sessions import SeatState, SessionState, format_group
from cloner_core.errors import RefusedError
from cloner_core.messages import Secret, Task
from cloner_core.multicast.session import Leaving, choose_version, group_key, receiver_key
from cloner_core.seats import NoSeat, Seat, SeatLater, SeatLeft, SeatReply, SeatRequest
from cloner_server.multicast.orders import EpochOrder
from cloner_server.state import events, sessions
from cloner_server.state.database import Act
from cloner_server.state.sessions import SERVED, UNSETTLED, AnyRow
from cloner_server.tasks import attempts
from cloner_server.tasks.attempts import Bearer

HEAR_S = 10.0
"""In which a node that sits down must hear, and be heard."""
RETURN_S = 30.0
"""In which the nodes of an epoch that died must have come to the next one, and any node to one that gathers."""
MUTE = "it may hear, but its answers do not arrive: a firewall on the way, or a route back that is another"
"""Why a node is sent away that was not heard, and has not said that it hears nothing."""
SEATS_MOST = 16
"""That an attempt may take in one epoch: each is a receiver more for the sender, and a node needs another rarely."""
_AGAIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Epoch:
    """What a seat is given in: the order of a sender that has its socket."""

    order: EpochOrder
    address: str
    port: int
    taken: Counter[str] = field(default_factory=Counter)  # seats by attempt


@dataclass(slots=True)
class Told:
    """What a sender is to be told, once the change is written."""

    admit: list[int] = field(default_factory=list)
    settle: list[int] = field(default_factory=list)
    dismiss: list[tuple[int, Leaving]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Asking:
    """A node asks for a seat; `epoch` is None while there is none to sit in."""

    connection: Connection
    act: Act
    epoch: Epoch | None
    told: Told

    def seat(self, bearer: Bearer, request: SeatRequest) -> SeatReply:
        """Return the seat of the node that is restoring now; raises RefusedError for an attempt that is not at work."""
        attempts.require_active(bearer)
        attempts.require_deploy(bearer)
        if not bearer.task.session:
            return NoSeat("the task is of no multicast session")
        row = sessions.get(self.connection, bearer.task.session)
        if not sessions.is_live(row):
            return NoSeat(row.why or f"session {row.id} is {row.state}")
        seat = sessions.seat_of(self.connection, row.id, bearer.task.node)
        if seat.attempt != bearer.attempt.id:
            seat = self._begin_anew(seat, bearer.attempt.id)
        elif SeatState(seat.state) not in UNSETTLED:
            return NoSeat(seat.why or "it has everything")
        pack_map = msgspec.json.decode(bearer.attempt.told, type=Task).version.pack_map
        try:
            version = choose_version(request.versions)
            if row.pack_map not in ("", pack_map):
                raise RefusedError("the packs of its image were arranged anew since the session was begun")
        except RefusedError as fault:
            return self._refuse(seat, str(fault))
        if not row.pack_map:
            row = sessions.change(self.connection, row.id, pack_map=pack_map)
        if self.epoch is None:
            return SeatLater(_why_later(self.connection, row), _AGAIN_S)
        return self._taken(row, seat, request, self.epoch, version)

    def _taken(self, row: AnyRow, seat: AnyRow, request: SeatRequest, epoch: Epoch, version: int) -> SeatReply:
        """Return a seat in the epoch: the same one to a node that sits there already."""
        number = int(seat.receiver)
        if SeatState(seat.state) not in SERVED or not seat.stream == request.stream == epoch.order.stream:
            if epoch.taken[seat.attempt] >= SEATS_MOST:
                self._free(seat)
                return self._refuse(seat, f"it took {SEATS_MOST} seats, one after the other, and gave up each")
            epoch.taken[seat.attempt] += 1
            number = self._sit(row, seat, epoch.order.stream)
        elif self._is_deaf(seat, request):
            self.told.settle.append(number)
            return self._refuse(seat, _deaf(row))
        self.told.admit.append(number)
        return _seat(epoch, number, version)

    def _begin_anew(self, seat: AnyRow, attempt: str) -> AnyRow:
        """Have a machine that was restarted take another seat."""
        self._free(seat)
        fresh = {"state": SeatState.AWAITED.value, "why": "", "stream": 0, "receiver": 0, "seated_s": None}
        sessions.change_seat(self.connection, seat, attempt=attempt, **fresh)
        return sessions.seat_of(self.connection, seat.session, seat.node)

    def _sit(self, row: AnyRow, seat: AnyRow, stream: int) -> int:
        self._free(seat)
        number, act = int(row.receivers) + 1, self.act
        sessions.change(self.connection, row.id, receivers=number, gathered_s=row.gathered_s or act.now_s)
        taken = {"state": SeatState.SEATED.value, "stream": stream, "receiver": number, "seated_s": act.now_s}
        sessions.change_seat(self.connection, seat, **taken)
        events.record(self.connection, act, f"session/{row.id}", "seat taken", node=seat.node, receiver=number)
        return number

    def _free(self, seat: AnyRow) -> None:
        if self.epoch is not None and seat.receiver and seat.stream == self.epoch.order.stream:
            self.told.settle.append(seat.receiver)

    def _is_deaf(self, seat: AnyRow, request: SeatRequest) -> bool:
        is_unheard = SeatState(seat.state) is SeatState.SEATED and not request.heard
        return is_unheard and self.act.now_s - seat.seated_s >= HEAR_S

    def _refuse(self, seat: AnyRow, why: str) -> NoSeat:
        sessions.settle_seat(self.connection, self.act, seat, SeatState.HTTPS, why)
        return NoSeat(why)


def leave(connection: Connection, act: Act, bearer: Bearer, left: SeatLeft, told: Told) -> None:
    """Take the word of a node that it goes on over HTTPS, or has everything."""
    if not bearer.task.session:
        return
    seat = sessions.seat_of(connection, bearer.task.session, bearer.task.node)
    if seat.attempt not in ("", bearer.attempt.id):
        return
    row = sessions.get(connection, seat.session)
    if seat.receiver and seat.stream == row.stream:  # in another epoch its number is another node's
        told.settle.append(seat.receiver)
    numbers = {"parcels": left.parcels, "loss": left.loss}
    if left.forged:
        what, obj = "forged datagrams", f"session/{seat.session}"
        events.record(connection, act, obj, what, alarm=True, is_network=True, node=seat.node, count=left.forged)
    if SeatState(seat.state) in UNSETTLED:
        state = SeatState.HTTPS if left.why else SeatState.WRITTEN
        sat_s = act.now_s - (seat.seated_s or act.now_s)
        why = left.why
        if why and not left.heard and sat_s >= HEAR_S - _AGAIN_S:  # not when it gave up at once, for want of memory
            why = _deaf(row)
        sessions.settle_seat(connection, act, seat, state, why, **numbers)
    elif seat.why == MUTE and not left.heard:  # the node knows better than we could
        sessions.change_seat(connection, seat, why=_deaf(row), **numbers)
    else:
        sessions.change_seat(connection, seat, **numbers)


def should_begin(row: AnyRow, seats: Sequence[SeatState], now_s: float) -> bool:
    """Tell whether a session that gathers is to send."""
    hearing = seats.count(SeatState.HEARING)
    if not hearing:
        return False
    if row.is_start_now or (row.least and hearing >= row.least):
        return True
    if not {SeatState.AWAITED, SeatState.SEATED} & set(seats):
        return True
    return row.gathered_s is not None and now_s - row.gathered_s >= row.wait_s


def should_end(row: AnyRow, seats: Sequence[SeatState], idle_s: float, *, is_link_wanted: bool) -> bool:
    """Tell whether there is nobody left that a session is there for.

    One that serves nobody (for `idle_s` so far) stays for those of its nodes that are still to come: as long as it
    waited for the others, unless another session wants the link. One that gathers gives its nodes the time to sit down.
    """
    if any(seat in SERVED for seat in seats):
        return False
    if not any(seat in UNSETTLED for seat in seats):
        return True
    if SessionState(row.state) is SessionState.GATHERING and idle_s < RETURN_S:
        return False
    return SessionState(row.state) is not SessionState.QUEUED and (is_link_wanted or idle_s >= row.wait_s)


def why_ended(row: AnyRow, seats: Sequence[SeatState], idle_s: float) -> str:
    """Return why a session is to end that `should_end`; "" when it did what it is there for."""
    if SeatState.AWAITED in seats and SessionState(row.state) is SessionState.GATHERING:
        return f"for {idle_s:.0f} s there was no node that it could begin with"
    had_any = SeatState.WRITTEN in seats or SeatState.HTTPS in seats
    return "" if had_any else "the tasks of all its nodes ended before it could begin"


def startable(queued: Iterable[AnyRow], used_bps: float, budget_bps: float) -> list[AnyRow]:
    """Return the queued sessions that nodes ask for and the link has room for; `queued` in their order.

    One that finds no room lets nobody pass: else small ones could keep it waiting for ever.
    """
    found = []
    for row in queued:
        if not row.pack_map:
            continue
        if used_bps and used_bps + row.rate_bps > budget_bps:
            break
        found.append(row)
        used_bps += row.rate_bps
    return found


def _why_later(connection: Connection, row: AnyRow) -> str:
    if SessionState(row.state) is not SessionState.QUEUED:
        return f"session {row.id}: its sender starts"
    live = [one for one in sessions.live(connection) if one.relay == row.relay]
    running = [str(one.id) for one in live if SessionState(one.state) is not SessionState.QUEUED]
    return f"session {row.id} is queued" + (f": the link is taken by {', '.join(running)}" if running else "")


def _seat(epoch: Epoch, number: int, version: int) -> Seat:
    order, master = epoch.order, bytes.fromhex(epoch.order.master.value)
    return Seat(
        version=version,
        stream=order.stream,
        number=number,
        group_key=Secret(group_key(master).hex()),
        own_key=Secret(receiver_key(master, number).hex()),
        group=order.group,
        port=order.port,
        sender=epoch.address,
        sender_port=epoch.port,
        hops=order.hops,
        block_bytes=order.block_bytes,
        window_parcels=order.window_parcels,
    )


def _deaf(row: AnyRow) -> str:
    return (
        f"nothing of {format_group(row.group, row.port)} arrived in {HEAR_S:.0f} s:"
        f" {'MLD' if ':' in row.group else 'IGMP'} snooping without a querier, or multicast filtered"
    )
