"""Runs the multicast sessions: lets them onto the link in their order, starts their senders, and hears of them.

What must last is in the database; here is what must not: the keys of epochs, and the processes that have them. A server
that was restarted finds its sessions there and gives each another epoch.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import Connection

from cloner_core.admin.sessions import SeatState, SeatView, SessionState, SessionView
from cloner_core.errors import ClonerError
from cloner_core.messages import Secret
from cloner_core.multicast.session import MASTER_BYTES, fitting_block_bytes
from cloner_core.seats import SeatLater, SeatLeft, SeatReply, SeatRequest
from cloner_server.multicast.links import Link
from cloner_server.multicast.orders import EpochOrder, SenderNews
from cloner_server.outlets import Outlet, Sender
from cloner_server.parcelshelf import Listed, ParcelShelf
from cloner_server.state import events, sessions
from cloner_server.state.database import Act, Database
from cloner_server.state.sessions import AnyRow, Sent
from cloner_server.tasks import multicasting, seating
from cloner_server.tasks.attempts import Bearer
from cloner_server.tasks.reviewing import Review
from cloner_server.tasks.seating import Epoch, Told

log = logging.getLogger(__name__)

TURN_S = 0.5
DEATHS_MOST = 5
"""Senders that may die one after the other before their session has failed."""
_NOTE_S = 5.0  # between two notes of how far a sender is: a server that is killed has the next begin there
_FAULT_S = 8.0  # a relay tries again within 5 s: what was in its way before a session had the link may be gone
_LASTING_S = 60.0  # an epoch that ran so long is no sign that the next will die
_FLOOR_PART = 0.05  # of its rate a session sends at least, whoever has to be waited for
_STREAMS = 1 << 31
_AUTHOR = "server"
_COUNT = re.compile(r"[0-9]+")  # "for 12 s" is no news after "for 11 s"


@dataclass(slots=True)
class _Epoch:
    """What is in memory of a session that has the link; `sender` is None while its parcels are named."""

    listing: Future[Listed]
    since_s: float  # of the steady clock: when the sender was started; until then when the session got the link
    sender: Sender | None = None
    is_begun: bool = False
    noted_s: float = 0.0  # of the steady clock: when what it has sent was written
    idle_since_s: float | None = None  # of the steady clock: nobody is served
    taken: Counter[str] = field(default_factory=Counter)  # seats by attempt

    def idle_s(self, row: AnyRow, seats: list[SeatState], now_s: float) -> float:
        """Return for how long nobody has been served; to be called at every look."""
        has_seats = self.sender is not None and self.sender.address is not None
        is_early = SessionState(row.state) is SessionState.GATHERING and not has_seats
        if is_early or any(seat in sessions.SERVED for seat in seats):
            self.idle_since_s = None
            return 0.0
        if self.idle_since_s is None:
            self.idle_since_s = now_s
        return now_s - self.idle_since_s


@dataclass(slots=True)
class SessionDesk:
    """The sessions of one server. Safe to use from several threads; no call waits for a sender."""

    database: Database
    shelf: ParcelShelf
    outlet: Callable[[str], Outlet]  # the wire of a relay, "" for our own
    clock: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic
    query_every_s: float = 0.0
    _epochs: dict[int, _Epoch] = field(default_factory=dict)
    _troubles: dict[str, str] = field(default_factory=dict)  # what each session or wire was last kept from its turn by
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def ask(self, connection: Connection, act: Act, bearer: Bearer, request: SeatRequest) -> tuple[SeatReply, Told]:
        """Return the seat of a node, and what its sender is to be told once that is committed (`tell`)."""
        told, session = Told(), int(bearer.task.session or 0)
        epoch = self._epochs.get(session)
        reply = seating.Asking(connection, act, _open(epoch), told).seat(bearer, request)
        if isinstance(reply, SeatLater):
            row = sessions.get(connection, session)
            if trouble := self._trouble(row):
                reply = msgspec.structs.replace(reply, text=f"session {row.id} waits: {trouble}")
            elif epoch is not None and epoch.sender is None:
                reply = msgspec.structs.replace(reply, text=self._progress(row, epoch))
            elif epoch is None and (waits := self._fetching(row)):
                reply = msgspec.structs.replace(reply, text=f"session {row.id}: {waits}")
        return reply, told

    def leave(self, connection: Connection, act: Act, bearer: Bearer, left: SeatLeft) -> Told:
        """Take the word of a node that it leaves its seat; returns what its sender is to be told then."""
        told = Told()
        seating.leave(connection, act, bearer, left, told)
        return told

    def tell(self, session: int, told: Told) -> None:
        """Tell the sender of a session what was committed."""
        epoch = self._epochs.get(session)
        if epoch is None or epoch.sender is None:
            return
        for number in told.admit:
            epoch.sender.admit(number)
        for number, reason in told.dismiss:
            epoch.sender.dismiss(number, reason)
        for number in told.settle:
            epoch.sender.settle(number)

    def view(self, connection: Connection, row: AnyRow) -> SessionView:
        """Return a session as an admin sees it, with what its sender told last."""
        epoch = self._epochs.get(row.id)
        if epoch is None or epoch.sender is None:
            fetching = self._fetching(row) if row.relay and sessions.is_live(row) else ""
            why = row.why or ("" if fetching else self._trouble(row))
            return msgspec.structs.replace(sessions.view(connection, row), fetching=fetching, why=why)
        news = epoch.sender.news()
        seen = sessions.view(connection, row, news.rate_bps if epoch.is_begun else 0.0, _sent(epoch.sender))
        heard = {one.number: one for one in news.receivers}
        numbers = {
            seat.node: heard[seat.receiver]
            for seat in sessions.seats(connection, row.id)
            if seat.stream == row.stream and seat.receiver in heard and SeatState(seat.state) in sessions.SERVED
        }

        def lively(seat: SeatView) -> SeatView:
            one = numbers.get(seat.node)
            return seat if one is None else msgspec.structs.replace(seat, parcels=one.done, loss=one.loss)

        return msgspec.structs.replace(seen, seats=tuple(lively(seat) for seat in seen.seats))

    def turn(self) -> None:
        """Do what is due; called every `TURN_S`."""
        with self._lock:
            with self.database.read() as connection:
                live = sessions.live(connection)
            for gone in set(self._epochs) - {row.id for row in live}:
                with self._alone(f"session {gone}"):
                    self._end_epoch(gone)
            asked = {row.relay for row in live if SessionState(row.state) is SessionState.QUEUED and row.pack_map}
            wanted = {relay for relay in asked if self._is_short(relay)}
            for row in live:
                with self._alone(_name(row)):
                    self._attend(row, is_link_wanted=row.relay in wanted)
            for relay in asked:
                with self._alone(_wire(relay)):
                    self._let_on(relay)

    def close(self) -> None:
        """Forget every epoch; the sessions go on with the next start of the server."""
        with self._lock:
            self._epochs.clear()
            self.shelf.close()

    @contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        """Have what fails of one session or wire keep no other from its turn.

        It is tried again at the next; nodes and admins are told, and the journal when it is another than before.
        """
        try:
            yield
        except Exception as error:  # a bug, too, must not end all sessions
            is_ours = isinstance(error, ClonerError)
            words = error.message if isinstance(error, ClonerError) else f"{type(error).__name__}, see the journal"
            if _COUNT.sub("", self._troubles.get(what, "")) != _COUNT.sub("", words):
                level = logging.WARNING if is_ours else logging.ERROR
                log.log(level, "%s waits: %s", what, words, exc_info=not is_ours)
            self._troubles[what] = words
        else:
            self._troubles.pop(what, None)

    def _trouble(self, row: AnyRow) -> str:
        """Return what keeps a session from sending; "" when nothing does."""
        is_next = SessionState(row.state) is SessionState.QUEUED and row.pack_map
        return self._troubles.get(_name(row), "") or (self._troubles.get(_wire(row.relay), "") if is_next else "")

    def _act(self) -> Act:
        return Act(_AUTHOR, self.clock())

    def _attend(self, row: AnyRow, *, is_link_wanted: bool) -> None:
        """Look at one session."""
        epoch = self._epochs.get(row.id)
        news = epoch.sender.news() if epoch is not None and epoch.sender is not None else None
        if epoch is not None and news is not None and news.is_dead:
            row = self._bury(row, epoch, news)
            epoch, news = None, None
        if row.pack_map and sessions.is_live(row) and (why := self.outlet(row.relay).lost()):
            row = self._fail(row, why)
        told = Told()
        with self.database.write() as connection:
            act, row = self._act(), sessions.get(connection, row.id)
            if not sessions.is_live(row):
                return
            age_s = self.steady() - epoch.since_s if epoch is not None else 0.0
            seats = Review(connection, act, row, news, age_s, told).seats()
            if epoch is not None and epoch.sender is not None and self.steady() - epoch.noted_s >= _NOTE_S:
                epoch.noted_s = self.steady()
                sessions.change(connection, row.id, sent=_encode_sent(epoch.sender))
            idle_s = epoch.idle_s(row, seats, self.steady()) if epoch is not None else 0.0
            if seating.should_end(row, seats, idle_s, is_link_wanted=is_link_wanted):
                why = seating.why_ended(row, seats, idle_s)
                row = multicasting.end_session(connection, act, row, SessionState.ENDED, why)
            elif SessionState(row.state) is SessionState.GATHERING and seating.should_begin(row, seats, act.now_s):
                row = sessions.move(connection, act, row, SessionState.SENDING, started_s=act.now_s)
        self.tell(row.id, told)
        if not sessions.is_live(row):
            self._end_epoch(row.id)
        elif epoch is not None and epoch.sender is not None:
            self._begin(row, epoch, epoch.sender, seats)
        elif SessionState(row.state) is not SessionState.QUEUED:
            self._prepare(row, epoch)

    def _begin(self, row: AnyRow, epoch: _Epoch, sender: Sender, seats: list[SeatState]) -> None:
        """Have an epoch send that is to: one that follows another waits for the first who has come along."""
        if epoch.is_begun or SessionState(row.state) is not SessionState.SENDING or SeatState.HEARING not in seats:
            return
        heard = {one.number for one in sender.news().receivers if one.heard_s is not None}
        if heard:
            epoch.is_begun = True
            sender.begin()

    def _is_short(self, relay: str) -> bool:
        """Tell whether a session that could send waits for another to leave the wire of `relay`."""
        with suppress(Exception):  # `_let_on` meets the same, and tells it
            ready, fitting = self._queue(relay)
            return bool(ready) and not fitting
        return False

    def _queue(self, relay: str) -> tuple[list[AnyRow], list[AnyRow]]:
        """Return the sessions that could send now and wait for the wire of `relay`, and those that it has room for."""
        outlet = self.outlet(relay)
        link = outlet.wire().link
        with self.database.read() as connection:
            rows = [row for row in sessions.live(connection) if row.relay == relay]
        ready: list[AnyRow] = []
        used_bps = 0.0
        for one in rows:
            epoch = self._epochs.get(one.id)
            has_sender = epoch is not None and epoch.sender is not None  # then its rate is what that was started with
            row = one if has_sender else self._granted(one, link)
            if SessionState(row.state) is not SessionState.QUEUED:
                used_bps += row.rate_bps
            elif row.pack_map and _can_start(outlet, row):
                ready.append(row)
        return ready, seating.startable(ready, used_bps, link.budget_bps)

    def _granted(self, row: AnyRow, link: Link) -> AnyRow:
        """Return a session with the rate that it has on a link as it is now."""
        rate_bps = multicasting.granted_bps(row.asked_bps, link)
        if rate_bps == row.rate_bps:
            return row
        with self.database.write() as connection:
            return sessions.change(connection, row.id, rate_bps=rate_bps)

    def _let_on(self, relay: str) -> None:
        """Let queued sessions onto their link, that of `relay`, as many as it has room for."""
        for row in self._queue(relay)[1]:
            with self.database.write() as connection:
                act, now = self._act(), sessions.get(connection, row.id)
                if SessionState(now.state) is SessionState.QUEUED:
                    now = sessions.move(connection, act, now, SessionState.GATHERING)
            if SessionState(now.state) is SessionState.GATHERING:
                with self._alone(_name(row)):
                    self._prepare(now, None)

    def _prepare(self, row: AnyRow, epoch: _Epoch | None) -> None:
        """Have the parcels of a session named; then start its sender."""
        if epoch is None:
            listing = self.shelf.listed(bytes.fromhex(row.pack_map))
            epoch = self._epochs[row.id] = _Epoch(listing, self.steady())
        if not epoch.listing.done():
            return
        if (fault := epoch.listing.exception()) is not None:
            self._fail(row, f"what it is to send cannot be read: {fault}")
            return
        outlet = self.outlet(row.relay)
        try:
            if outlet.waits_for(bytes.fromhex(row.pack_map)):
                return
        except ClonerError as fault:
            if self.steady() - epoch.since_s >= _FAULT_S:
                self._fail(row, f"what it is to send cannot be had: {fault}")
            return
        self._start(row, epoch, outlet)

    def _start(self, row: AnyRow, epoch: _Epoch, outlet: Outlet) -> None:
        listed, wire = epoch.listing.result().parcels, outlet.wire()
        wire.link.source(row.group)  # refused here and below, before another epoch is counted
        outlet.require_room()
        stream = row.stream % _STREAMS + 1 if row.stream else secrets.randbelow(_STREAMS) + 1
        kept = Sent() if row.sent is None else msgspec.json.decode(row.sent, type=Sent)
        rate_bps = multicasting.granted_bps(row.asked_bps, wire.link)
        order = EpochOrder(
            session=str(row.id),
            stream=stream,
            pack_map=row.pack_map,
            group=row.group,
            port=row.port,
            rate_bps=rate_bps,
            floor_bps=rate_bps * _FLOOR_PART,
            master=Secret(secrets.token_bytes(MASTER_BYTES).hex()),
            hops=row.hops,
            block_bytes=fitting_block_bytes(row.group),
            first_parcel=min(kept.begun, len(listed.digests)) if row.started_s is not None else 0,
            query_every_s=self.query_every_s,
        )
        with self.database.write() as connection:
            now = sessions.get(connection, row.id)
            if not sessions.is_live(now):
                return
            told = {"parcels": len(listed.digests), "data_bytes": sum(listed.sizes), "interface": wire.link.interface}
            numbers = {"stream": stream, "epochs": now.epochs + 1, "receivers": 0}
            sessions.change(connection, row.id, rate_bps=rate_bps, **numbers, **told)
            events.record(connection, self._act(), f"session/{row.id}", "epoch", **numbers)
        epoch.sender, epoch.since_s = outlet.start(order, listed), self.steady()

    def _progress(self, row: AnyRow, epoch: _Epoch) -> str:
        """Return what a session waits for that has no sender yet."""
        if epoch.listing.done():
            return f"session {row.id}: {self._fetching(row) or 'its sender starts'}"
        return self.shelf.progress(bytes.fromhex(row.pack_map))

    def _fetching(self, row: AnyRow) -> str:
        try:
            return self.outlet(row.relay).waits_for(bytes.fromhex(row.pack_map)) if row.pack_map else ""
        except ClonerError as fault:
            return fault.message

    def _bury(self, row: AnyRow, epoch: _Epoch, news: SenderNews) -> AnyRow:
        """Note that a sender died; the session goes on with another, or has failed."""
        del self._epochs[row.id]
        lived_s = self.steady() - epoch.since_s
        deaths = 1 if lived_s >= _LASTING_S else row.deaths + 1
        words = (news.last_words.strip().splitlines() or ["it said nothing"])[-1][:500]
        with self.database.write() as connection:
            act, row = self._act(), sessions.get(connection, row.id)
            told: dict[str, Any] = {"why": words, "lived_s": round(lived_s, 1), "deaths": deaths}
            events.record(connection, act, f"session/{row.id}", "sender died", alarm=True, **told)
            if epoch.sender is not None:
                sessions.change(connection, row.id, sent=_encode_sent(epoch.sender))
            row = sessions.change(connection, row.id, deaths=deaths)
        if deaths >= DEATHS_MOST:
            return self._fail(row, f"its sender died {deaths} times, one after the other; at last: {words}")
        return row

    def _fail(self, row: AnyRow, why: str) -> AnyRow:
        self._epochs.pop(row.id, None)
        with self.database.write() as connection:
            act, row = self._act(), sessions.get(connection, row.id)
            if sessions.is_live(row):
                row = multicasting.end_session(connection, act, row, SessionState.FAILED, why, alarm=True)
        return row

    def _end_epoch(self, session: int) -> None:
        epoch = self._epochs.pop(session, None)
        if epoch is None or epoch.sender is None:
            return
        epoch.sender.stop()  # before anything is written: nobody else would, if the database takes nothing now
        with self.database.write() as connection:
            sessions.change(connection, session, sent=_encode_sent(epoch.sender))


async def run_desk(desk: SessionDesk) -> None:
    """Have `desk` take its turns until cancelled."""
    while True:
        try:
            await asyncio.to_thread(desk.turn)
        except Exception as error:  # noqa: BLE001 — a disk that is full now must not end all sessions
            log.error("sessions are looked at again: %s", error)
        await asyncio.sleep(TURN_S)


def _name(row: AnyRow) -> str:
    return f"session {row.id}"


def _can_start(outlet: Outlet, row: AnyRow) -> bool:
    """Tell whether a session would send with the link, or fail and say why."""
    try:
        return not outlet.waits_for(bytes.fromhex(row.pack_map))
    except ClonerError:
        return True


def _wire(relay: str) -> str:
    return f"the wire of relay {relay}" if relay else "the server's wire"


def _open(epoch: _Epoch | None) -> Epoch | None:
    """Return what seats are given in; None while there is no sender with a socket."""
    if epoch is None or epoch.sender is None or epoch.sender.news().is_ended:
        return None
    where = epoch.sender.address
    return None if where is None else Epoch(epoch.sender.order, *where, epoch.taken)


def _sent(sender: Sender) -> Sent:
    """Return what a sender has told; one that died before it began has not gone back behind where it was to begin."""
    news = sender.news()
    sent, begun = news.sent, max(news.begun, sender.order.first_parcel)
    return Sent(sent.wire_bytes, sent.blocks, sent.combinations, sent.reports, begun)


def _encode_sent(sender: Sender) -> str:
    return msgspec.json.encode(_sent(sender)).decode()
