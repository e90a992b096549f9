"""The sender of a session's epoch: takes reports and the time, gives runs and syncs to be sealed and sent.

It holds no socket, clock or file; the bytes of a parcel come from a source it is given. It keeps a few words for each
receiver and nothing of what it was told about single blocks: repair serves whoever needs most, and so all others.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import inf, log

from cloner_core.image.digest import Bytes
from cloner_core.multicast.combining import Workbench, make_combinations
from cloner_core.multicast.members import Member, Members
from cloner_core.multicast.pacing import FRAME_BYTES, Pacer, RateControl
from cloner_core.multicast.plan import Plan
from cloner_core.multicast.session import Leaving, Session
from cloner_core.multicast.wire import (
    BURST_MOST,
    LEAVINGS_MOST,
    OVERHEAD_BYTES,
    RANGES_MOST,
    REPAIRS_MOST,
    ROOM_MOST,
    Flag,
    Kind,
    Phase,
    Report,
    Run,
    Sync,
)

WAIT_S = 0.0005
"""After which to ask a sender again that waits for a receiver."""
_SYNC_S = 0.02
_SYNC_LEAST_S = 0.002
_IDLE_SYNC_S = 0.1
_REVIEW_S = 0.25
_BACKOFF_MS = 10.0
_BACKOFF_MOST_MS = 400.0
_UNASKED_PER_S = 500.0  # reports that nobody asked for, above which they are spread over more time
_UNASKED_LEAST = 8
_CALMER = 0.98
_FORESEEN = 0.8  # of what earlier parcels needed, that is sent before anybody asks
_FORESEEN_MOST = 0.15  # of a parcel's blocks
_MADE_AHEAD = 16  # combinations: one more costs little once the first is made
_LATE_EVERY = 8  # bursts, of which one may mend what one receiver asks for late
_SPENT_SEQUENCES = 0xFFFF0000
_GOODBYES = 8
_UNHURRIED_S = 1.0  # that a parcel stays open while there is room for others


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast, and how far ahead of those who acknowledge."""

    cap_bps: float
    floor_bps: float
    window_datagrams: int = 5600  # 8 MiB: well below receivers' socket buffers of 64 MiB
    frame_bytes: int = FRAME_BYTES  # headers of each datagram below ours


@dataclass(slots=True)
class Repair:
    """What is known of a parcel whose blocks were sent."""

    sent: int  # combinations
    target: int
    asked: int  # the highest target that anybody asked for
    changed_s: float
    is_late: bool
    claimant: int = -1  # who asked for the most


@dataclass(slots=True)
class Sent:
    """What a sender has sent, and heard, in all."""

    datagrams: int = 0
    wire_bytes: int = 0
    blocks: int = 0
    combinations: int = 0
    syncs: int = 0
    reports: int = 0
    unasked: int = 0
    altered: int = 0  # reports that bytes were altered on the wire
    dropped: int = 0  # reports that were old, early, or of nobody who is served


class Sender:
    """Sends one epoch. Memory: the parcel being sent and one being mended, combinations, a few words a receiver."""

    def __init__(
        self,
        session: Session,
        source: Callable[[int], Bytes],
        pace: Pace,
        now_s: float,
        *,
        first_combination: int = 0,
        parcels: range | None = None,
        is_gathering: bool = False,
    ) -> None:
        """`source` returns a parcel as it is sent, encrypted (`Content`); `parcels` are those to be sent unasked (all).

        `first_combination` should differ from epoch to epoch, lest combinations be sent that receivers hold already.
        While it `is_gathering` it polls its receivers, so that it is known who hears and is heard, and sends no data.
        """
        self.session = session
        self.members = Members()
        self.sent = Sent()
        self.rate = RateControl(pace.cap_bps, pace.floor_bps)
        self.is_over = False
        self.is_gathering = is_gathering
        """Whether `begin` is still to come."""
        self._source = source
        self._pace = pace
        self._pacer = Pacer(now_s)
        self._plan = Plan(len(session.parcels), parcels if parcels is not None else range(len(session.parcels)))
        self._first_combination = first_combination
        self._blocks = sum(session.blocks(parcel) for parcel in range(len(session.parcels)))
        self._sequence = 0
        self._current: tuple[int, Bytes, int] | None = None  # parcel, its bytes, the next block
        self._starts: deque[int] = deque(maxlen=256)  # sequences at which parcels were begun
        self._repairs: dict[int, Repair] = {}
        self._combined: dict[int, int] = {}  # combinations sent of parcels that are closed
        self._ended: dict[int, int] = {}  # sequence of the last block of each parcel sent
        self._ready: dict[int, tuple[int, list[bytes]]] = {}  # combinations made and not sent: first, payloads
        self._bench = Workbench()
        self._foreseen = 0.0  # part of a parcel's blocks that receivers needed as combinations, of late
        self._backoff_ms = _BACKOFF_MS
        self._unasked = 0
        self._sync_s = now_s
        self._synced = 0
        self._reviewed_s = now_s
        self._waiting_s = self._room_s = self._begun_s = self._spread_s = now_s
        self._floor_parcel_s = 0.0
        self._bursts = 0
        self._ending_since_s = inf
        self._noted_s = now_s
        self._goodbyes = 0
        self._began_s = now_s
        self._news = False

    # What the driver asks

    @property
    def is_quiet(self) -> bool:
        """Whether there is nothing to send, and nothing being mended."""
        return self._is_ending and not self._repairs

    @property
    def _is_ending(self) -> bool:
        """Whether there are no blocks to be sent."""
        return self._current is None and not self._plan.left

    @property
    def is_strict(self) -> bool:
        """Whether datagrams are to have tags over all of them, as bytes were altered on the wire."""
        return self.sent.altered > 0

    @property
    def is_finished(self) -> bool:
        """Whether everything was sent and no receiver is served any more; somebody must have been admitted."""
        return bool(self.members.members) and not self.members.served and self.is_quiet

    @property
    def is_spent(self) -> bool:
        """Whether the sequences of this epoch run out: the session needs another."""
        return self._sequence > _SPENT_SEQUENCES

    @property
    def progress(self) -> int:
        """How many parcels are still to be sent, the one being sent included."""
        return self._plan.left + (self._current is not None)

    def due_s(self) -> float:
        """Return when `next` has something to say, should nothing arrive meanwhile.

        When it had nothing at that time, it waits for a receiver: ask again after a report, or after WAIT_S.
        """
        return min(self._sync_s, self._pacer.free_s) if self._has_work() else self._sync_s

    def begin(self, now_s: float) -> None:
        """Send what there is, to whom there is; those who come later get it after the others."""
        self.is_gathering = False
        self._waiting_s = self._room_s = self._begun_s = self._reviewed_s = now_s

    def admit(self, receiver: int, now_s: float) -> None:
        """Take in a receiver that was given its key."""
        self.members.admit(receiver, self._sequence, now_s)

    def settle(self, receiver: int) -> None:
        """Take the server's word that a receiver has everything: a lost last report need not be polled for."""
        if receiver in self.members.members:
            self.members.settle(self.members.members[receiver])

    def dismiss(self, receiver: int, reason: Leaving) -> None:
        """Serve a receiver no more."""
        self.members.leave(receiver, reason)

    def close(self) -> None:
        """End the session: the next syncs say that it is over, one where nobody is served any more."""
        if not self._goodbyes:
            self._goodbyes = _GOODBYES if self.members.served else 1
            self._sync_s = -inf

    # What arrives

    def receive(self, report: Report, now_s: float) -> None:
        """Take a report that was opened with the key of its receiver."""
        clock_s = now_s - self._began_s
        window, ending_s = self._pace.window_datagrams, max(0.0, now_s - self._ending_since_s)
        served = self.members.served
        member = self.members.take(report, self._sequence, window, clock_s, now_s, ending_s=ending_s)
        if member is None:
            self.sent.dropped += 1
            return
        self.sent.reports += 1
        if served and not self.members.served:
            self._sync_s = min(self._sync_s, now_s)  # nothing is left to be mended: do not wait to find that out
        if not report.flags & Flag.POLLED:
            self.sent.unasked += 1
            self._unasked += 1
        if report.flags & Flag.ALTERED:
            self.sent.altered += 1
            self._news = True
        if self._goodbyes or member.is_done:
            return  # who has everything needs nothing, whatever it asks for
        for parcel, target in report.needs:
            self._take_need(member, parcel, target, now_s)
        if self._sequence - report.acked > 2 * self._pace.window_datagrams:
            return  # what it wants may have been sent meanwhile
        for first, count in report.wants:
            added = self._plan.want(first, count, lambda parcel: self._ended.get(parcel, -1) > report.acked)
            if added:
                self._news = True
                self.members.wanted(member, added, len(self.session.parcels))

    def _take_need(self, member: Member, parcel: int, target: int, now_s: float) -> None:
        repair = self._repairs.get(parcel)
        if repair is None:
            is_current = self._current is not None and self._current[0] == parcel
            if parcel >= len(self.session.parcels) or is_current or self._plan.has(parcel):
                return
            if len(self._repairs) >= REPAIRS_MOST:
                return
            sent = self._combined.get(parcel, 0)
            repair = self._repairs[parcel] = Repair(sent, sent, 0, now_s, is_late=True)
        target = min(target, repair.sent + self.session.blocks(parcel) + 64, 0xFFFF)
        if target > repair.target:
            self.members.asked(member, target - repair.target, self.sent.datagrams, self._blocks)
            if member.left is not None:
                self._forget_claims(member)
                return
            repair.target, repair.claimant = target, member.number
            repair.changed_s = now_s
            self._news = True
        repair.asked = max(repair.asked, target)

    def _forget_claims(self, member: Member) -> None:
        """Send nothing that only one who asked for too much asked for; who needs some of it says so again."""
        self._foreseen = 0.0
        for repair in self._repairs.values():
            if repair.claimant == member.number:
                repair.target = repair.asked = repair.sent

    # What is to be sent

    def next(self, now_s: float) -> Run | Sync | None:
        """Return what to send now, None when there is nothing or it is too early: see `due_s`."""
        if self.is_over:
            return None
        if now_s >= self._sync_s or (
            self._sequence - self._synced > self._pace.window_datagrams // 8
            and now_s - self._sync_s > _SYNC_LEAST_S - _SYNC_S
        ):
            return self._make_sync(now_s)
        if now_s < self._pacer.free_s or self._goodbyes or self.is_gathering:
            return None
        if not self._may_go_on(now_s):
            return None
        self._bursts += 1
        late_first = self._bursts % _LATE_EVERY == 0
        run = (
            self._next_repair(now_s, late=False)
            or (self._next_repair(now_s, late=True) if late_first else None)
            or self._next_blocks(now_s)
            or self._next_repair(now_s, late=True)
        )
        if run is not None:
            self._account(run.count, len(run.payload), now_s)
            if not self._has_work():
                self._sync_s = now_s  # nothing follows: have it known what is missing
        return run

    def _has_work(self) -> bool:
        if self._goodbyes or self.is_gathering:
            return False
        if self._current is not None or any(one.target > one.sent for one in self._repairs.values()):
            return True
        return bool(self._plan.left)

    def _account(self, count: int, payload_bytes: int, now_s: float) -> None:
        self._sequence += count
        self.sent.datagrams += count
        wire_bytes = payload_bytes + count * (OVERHEAD_BYTES + self._pace.frame_bytes)
        self.sent.wire_bytes += wire_bytes
        self._pacer.take(wire_bytes, self.rate.rate_bps, now_s)

    def _next_sequence(self) -> int:
        return self._sequence + 1

    def _may_go_on(self, now_s: float) -> bool:
        """Return whether nobody's socket is so far behind that it has to be waited for."""
        since_s, self._waiting_s = now_s - self._waiting_s, now_s
        slowest = min(self.members.heard(now_s), key=lambda one: one.acked, default=None)
        window = self._pace.window_datagrams
        if slowest is None or self._sequence - slowest.acked <= window:
            return True
        self.members.waited(slowest, min(since_s, _SYNC_S), window // 2, now_s)
        # Not below the floor, whoever waits.
        burst_bits = BURST_MOST * (self.session.block_bytes + OVERHEAD_BYTES + self._pace.frame_bytes) * 8
        return now_s - self._pacer.free_s > burst_bits / self.rate.floor_bps

    def _may_begin(self, now_s: float) -> bool:
        """Return whether receivers have room for one more parcel beside those being mended."""
        settled_s = now_s - (1.5 * self._backoff_ms / 1000 + 1.5 * _SYNC_S)
        open_parcels = sum(
            one.changed_s > settled_s or one.target > one.sent for one in self._repairs.values() if not one.is_late
        )
        if open_parcels >= self.session.window_parcels - 1 or len(self._repairs) >= REPAIRS_MOST:
            return False
        since_s, self._room_s = now_s - self._room_s, now_s
        heard = self.members.heard(now_s)
        waited_for = [one for one in heard if not self.members.is_holding(one)]
        fullest = min(waited_for, key=lambda one: one.room, default=None)
        if fullest is None or self._has_room(fullest):
            return True
        waited_s = min(since_s, _SYNC_S)
        # One that is slow says in the end that it has no room, and leaves; who never does is not waited for.
        others = [self._has_room(one) for one in self.members.others(fullest, now_s)]
        if others and 2 * sum(others) >= len(others):
            self.members.held(fullest, waited_s)
        self.members.waited(fullest, waited_s, self._pace.window_datagrams // 2, now_s)
        return now_s - self._begun_s > self._floor_parcel_s

    def _has_room(self, member: Member) -> bool:
        """Return whether a receiver has room for more parcels than were begun since what it has seen."""
        return member.room > len(self._starts) - bisect_right(self._starts, member.acked)

    def _next_blocks(self, now_s: float) -> Run | None:
        if self._current is None:
            if not self._plan.left or not self._may_begin(now_s):
                return None
            parcel = self._plan.take()
            self._current = parcel, self._source(parcel), 0
            self._starts.append(self._sequence)
            self._begun_s = now_s
            self._floor_parcel_s = len(self._current[1]) * 8 / self.rate.floor_bps
        parcel, data, first = self._current
        size, blocks = self.session.block_bytes, self.session.blocks(parcel)
        count = min(BURST_MOST, blocks - first)
        payload = memoryview(data)[first * size : (first + count) * size]
        run = Run(Kind.BLOCKS, parcel, first, count, self._next_sequence(), payload)
        self.sent.blocks += count
        if first + count < blocks:
            self._current = parcel, data, first + count
        else:
            self._current = None
            self._end_blocks(parcel, run.sequence + count - 1, now_s)
        return run

    def _end_blocks(self, parcel: int, sequence: int, now_s: float) -> None:
        was_sent = parcel in self._ended
        self._ended[parcel] = sequence
        if parcel not in self._repairs:
            sent = self._combined.get(parcel, 0)
            # Blocks sent again are for few, whose loss nobody foresees.
            ahead = 0 if was_sent else int(self._foreseen * _FORESEEN * self.session.blocks(parcel))
            self._repairs[parcel] = Repair(sent, sent + ahead, sent, now_s, is_late=was_sent)
        self._news = True

    def _next_repair(self, now_s: float, *, late: bool) -> Run | None:
        for parcel, repair in self._repairs.items():
            if repair.is_late == late and repair.target > repair.sent:
                first = (self._first_combination + repair.sent) & 0xFFFF
                count = min(BURST_MOST, repair.target - repair.sent, 0x10000 - first)
                payload = b"".join(self._take_combinations(parcel, repair, count))
                repair.sent += count
                repair.changed_s = now_s
                self.sent.combinations += count
                if repair.sent >= repair.target:
                    self._news = True
                return Run(Kind.COMBINATIONS, parcel, first, count, self._next_sequence(), payload)
        return None

    def _take_combinations(self, parcel: int, repair: Repair, count: int) -> list[bytes]:
        """Return the next combinations; they are made many at once, as the first of them costs most."""
        at, made = self._ready.get(parcel, (repair.sent, []))
        if at != repair.sent or len(made) < count:
            more = _MADE_AHEAD + int(self._foreseen * self.session.blocks(parcel) / 2)
            wanted = max(count, repair.target - repair.sent) + more
            numbers = [(self._first_combination + repair.sent + one) & 0xFFFF for one in range(wanted)]
            data, size = self._source(parcel), self.session.block_bytes
            at, made = repair.sent, make_combinations(self._bench, data, size, parcel, numbers)
        self._ready[parcel] = at + count, made[count:]
        return made[:count]

    # What is told

    def _make_sync(self, now_s: float) -> Sync:
        self._close_repairs(now_s)
        if now_s - self._reviewed_s > _REVIEW_S:
            self._review(now_s)
        if self._goodbyes:
            self._goodbyes -= 1
            self.is_over = not self._goodbyes
        self._note_end(now_s)
        is_idle = (self.is_quiet or self.is_gathering) and not self._goodbyes
        plan = self._plan.ranges(RANGES_MOST - 1)
        if self._current is not None:
            plan = ((self._current[0], 1), *plan)
        self._spread_reports(now_s)
        self._sequence += 1
        window, is_ending, is_gathering = self._pace.window_datagrams, self._is_ending, self.is_gathering
        polls = self.members.polls(self._sequence, window, now_s, is_ending=is_ending, is_gathering=is_gathering)
        sync = Sync(
            self._sequence,
            int((now_s - self._began_s) * 1000) & 0xFFFFFFFF,
            Phase.OVER if self._goodbyes or self.is_over else Phase.FINISHING if self.is_quiet else Phase.SENDING,
            int(self._backoff_ms),
            len(self.members.members),
            tuple((parcel, one.sent & 0xFFFF, one.target) for parcel, one in self._repairs.items()),
            plan,
            () if self._goodbyes or self.is_over else polls,
            self.members.told(LEAVINGS_MOST),
            min((ROOM_MOST, *(one.room for one in self.members.heard(now_s)))),
            self.is_strict,
        )
        self._synced = self._sequence
        self._sync_s = now_s + (_IDLE_SYNC_S if is_idle and not self._news else _SYNC_S)
        self._news = False
        self.sent.syncs += 1
        self.sent.datagrams += 1
        self.sent.wire_bytes += 100 + OVERHEAD_BYTES + self._pace.frame_bytes
        return sync

    def _note_end(self, now_s: float) -> None:
        self._ending_since_s = min(self._ending_since_s, now_s) if self._is_ending else inf
        if self._is_ending and not self.is_gathering:
            self.members.rest_s += now_s - self._noted_s
        self._noted_s = now_s

    def _close_repairs(self, now_s: float) -> None:
        """Forget parcels that nobody has asked about for long enough, and all when nobody is left who could."""
        is_deserted = bool(self.members.members) and not self.members.served
        quiet_s = 3 * self._backoff_ms / 1000 + 4 * _SYNC_S
        if self._plan.left and len(self._repairs) < REPAIRS_MOST // 2:
            quiet_s = max(quiet_s, _UNHURRIED_S)
        for parcel, repair in list(self._repairs.items()):
            if is_deserted or (repair.sent >= repair.target and now_s - repair.changed_s > quiet_s):
                del self._repairs[parcel]
                self._ready.pop(parcel, None)
                self._combined[parcel] = repair.sent
                if not (repair.is_late or is_deserted):  # who has gone asks for nothing, whatever it lost
                    needed = repair.asked / self.session.blocks(parcel)
                    self._foreseen = min(_FORESEEN_MOST, max(needed, self._foreseen * 0.9))

    def _spread_reports(self, now_s: float) -> None:
        """Have reports that nobody asks for come over more time when there are too many."""
        passed_s, self._spread_s = now_s - self._spread_s, now_s
        if self._unasked > _UNASKED_PER_S * passed_s + _UNASKED_LEAST:
            self._backoff_ms = min(_BACKOFF_MOST_MS, self._backoff_ms * 1.5)
        else:
            base_ms = _BACKOFF_MS * (1 + log(max(1, len(self.members.members))))
            self._backoff_ms = max(base_ms, self._backoff_ms * _CALMER)
        self._unasked = 0

    def _review(self, now_s: float) -> None:
        self._reviewed_s = now_s
        self.members.review(now_s)
        loss = self.members.common_loss()
        if loss is not None and not self.is_gathering:
            self.rate.observe(loss)
