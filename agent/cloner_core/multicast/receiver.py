"""The receiver of a session: takes what was opened and the time, gives whole parcels and reports.

It holds no socket, clock or file. What it says is decided by what the sender's last sync does not promise already.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from math import exp, inf, log, log1p

from cloner_core.multicast.content import SPARE_BYTES, Buffer
from cloner_core.multicast.gathering import Gathering
from cloner_core.multicast.session import Leaving, Session
from cloner_core.multicast.wire import RANGES_MOST, REPAIRS_MOST, Flag, Kind, Phase, Report, Run, Sync

STALE_S = 3.0
"""Without a word of the sender for so long, ask the server which epoch it is."""
_ASKED_AS_COMBINATIONS = 64  # a parcel of so few blocks needs no blocks sent again when all are missing
_IDLE_S = 5.0  # untouched for so long, what was gathered gives way to a new parcel
_HARDER_S = 0.1  # between two reports that nobody asked for, of a receiver without room


class _State(IntEnum):
    MISSING = 0
    GATHERING = 1
    HELD = 2  # by the driver, until it is settled
    DONE = 3


@dataclass(slots=True)
class Counters:
    """What a receiver has seen in all."""

    datagrams: int = 0
    malformed: int = 0  # sealed by a member, and wrong all the same
    skipped: int = 0  # no room for their parcel
    poisoned: int = 0  # parcels whole and with another digest
    reports: int = 0


class Receiver:
    """Gathers the parcels of one session. Memory is bounded by the window of the session."""

    def __init__(
        self,
        session: Session,
        number: int,
        random: Callable[[], float],
        now_s: float,
        *,
        allocate: Callable[[int], Buffer] = bytearray,
        free: Callable[[Buffer], None] = lambda _: None,
    ) -> None:
        """`random` gives numbers from 0 to below 1; `number` was given to this receiver for this epoch alone.

        `allocate` gives room of so many bytes (a parcel's and SPARE_BYTES), and `free` takes that of parcels that are
        given up; that of whole parcels is the driver's. It may be shared with other processes, and used again: new
        memory costs more, in page faults, than what is put into it.
        """
        self.session = session
        self.number = number
        self.left: Leaving | None = None
        self.counters = Counters()
        self.loss = 0.0
        self.heard_s = now_s
        self.ready: deque[Gathering] = deque()
        """Whole parcels; the driver takes each away, finishes it, and settles it."""
        self.reports: list[Report] = []
        """To be sealed and sent by the driver, which empties the list."""
        self._random = random
        self._allocate = allocate
        self._free = free
        self._state = bytearray(len(session.parcels))
        self._gatherings: dict[int, Gathering] = {}
        self._held = 0
        self._undone = len(session.parcels)
        self._sync: Sync | None = None
        self._acked = self._since_sync = self._counter = 0
        self._report_due_s = inf
        self._backoff_ms = 0  # of the sync by which it was set
        self._reported_s = -inf
        self._is_altered = False  # a parcel of this epoch was not what was sent

    @property
    def is_done(self) -> bool:
        return not self._undone

    @property
    def done(self) -> int:
        """How many parcels are settled."""
        return len(self._state) - self._undone

    @property
    def room(self) -> int:
        """How many more parcels it could begin."""
        return max(0, self.session.window_parcels - len(self._gatherings) - self._held)

    @property
    def due_s(self) -> float:
        """When `tick` wants to be called; `inf` for not at all."""
        return self._report_due_s

    def is_stale(self, now_s: float) -> bool:
        """Return whether the sender is silent for so long that the server should be asked."""
        return now_s - self.heard_s > STALE_S

    def missing_parcels(self) -> list[int]:
        """Return the parcels that are not settled: what is left to fetch over HTTPS."""
        return [parcel for parcel, state in enumerate(self._state) if state != _State.DONE]

    def enter(self, stream: int, number: int, now_s: float) -> None:
        """Go on with another epoch of the session: a sender that began anew, with another key and `stream`.

        What is whole stays; what is not was encrypted by the other key, and is given up.
        """
        self.session = replace(self.session, stream=stream)
        self.number = number
        self.heard_s = now_s
        self._sync = None
        self._acked = self._since_sync = self._counter = 0
        self._report_due_s = inf
        self._is_altered = False
        for parcel in list(self._gatherings):
            self._give_up(parcel)

    def _give_up(self, parcel: int) -> None:
        self._free(self._gatherings.pop(parcel).room)
        self._state[parcel] = _State.MISSING

    def settle(self, parcel: int, *, is_good: bool) -> None:
        """Take the driver's word that a parcel is written, or that its bytes were wrong: then it is wanted again."""
        if self._state[parcel] != _State.HELD:
            return
        self._held -= 1
        self._state[parcel] = _State.DONE if is_good else _State.MISSING
        self._undone -= is_good
        self.counters.poisoned += not is_good
        self._is_altered |= not is_good

    def note(self, parcel: int) -> None:
        """Take the driver's word that it has a parcel from elsewhere: before a power cut, or over HTTPS."""
        if self._state[parcel] in (_State.MISSING, _State.GATHERING):
            if parcel in self._gatherings:
                self._free(self._gatherings.pop(parcel).room)
            self._state[parcel] = _State.DONE
            self._undone -= 1

    def accept(self, messages: Iterable[Run | Sync], now_s: float) -> None:
        """Take what was opened, in the order it arrived."""
        for message in messages:
            last = message.sequence + message.count - 1 if isinstance(message, Run) else message.sequence
            if last > self._acked:
                # What was heard before is no word of the sender: a stranger who says it again keeps nobody in an epoch.
                self._acked, self.heard_s = last, now_s
            if isinstance(message, Run):
                self._since_sync += message.count
                self.counters.datagrams += message.count
                self._take_run(message, now_s)
            elif self._sync is None or message.sequence > self._sync.sequence:
                self._take_sync(message, now_s)

    def tick(self, now_s: float) -> None:
        """Say what has become due."""
        if now_s >= self._report_due_s:
            self._report_due_s = inf
            self._report_unless_promised(Flag(0), now_s)

    def _take_run(self, run: Run, now_s: float) -> None:
        parcel = run.parcel
        if parcel >= len(self._state):
            self.counters.malformed += run.count
            return
        gathering = self._gatherings.get(parcel)
        if gathering is None:
            if self._state[parcel] != _State.MISSING or run.kind != Kind.BLOCKS:
                return
            gathering = self._begin(parcel, now_s)
            if gathering is None:
                self.counters.skipped += run.count
                return
        add = gathering.add_blocks if run.kind == Kind.BLOCKS else gathering.add_combinations
        if not add(run.first, run.count, run.payload):
            self.counters.malformed += run.count
            return
        gathering.touched_s = now_s
        if gathering.is_whole:
            del self._gatherings[parcel]
            self._state[parcel] = _State.HELD
            self._held += 1
            self.ready.append(gathering)

    def _begin(self, parcel: int, now_s: float) -> Gathering | None:
        """Return a new gathering, or None when there is no room for it."""
        if not self.room:
            stalest = min(self._gatherings.values(), key=lambda one: one.touched_s, default=None)
            if stalest is None or now_s - stalest.touched_s < _IDLE_S:
                return None
            self._give_up(stalest.parcel)
        room = self._allocate(self.session.parcels[parcel].size + SPARE_BYTES)
        gathering = Gathering(parcel, room, self.session.block_bytes, now_s)
        self._gatherings[parcel] = gathering
        self._state[parcel] = _State.GATHERING
        return gathering

    def _take_sync(self, sync: Sync, now_s: float) -> None:
        self._measure(sync)
        self._sync = sync
        if sync.leavings:
            reason = dict(sync.leavings).get(self.number)
            if reason is not None and self.left is None:
                self.left = Leaving(reason) if reason in Leaving.__members__.values() else Leaving.OVER
        if sync.phase == Phase.OVER and self.left is None:
            self.left = Leaving.OVER
        for parcel, sent, _ in sync.repairs:
            gathering = self._gatherings.get(parcel)
            if gathering is None and parcel < len(self._state) and self._is_small_and_missing(parcel):
                gathering = self._begin(parcel, now_s)
            if gathering is not None:
                gathering.sent = sent
        if self.left is not None:
            self._report_due_s = inf
        elif any(0 <= self.number - first < count for first, count in sync.polls):
            self._report_due_s = inf
            self._report(Flag.POLLED, *self._demands(sync), now_s)
        elif self._speaks_up(sync, now_s):
            # A sender that hears too many has them wait longer: also those that wait already.
            if self._report_due_s == inf or sync.backoff_ms > self._backoff_ms:
                self._backoff_ms = sync.backoff_ms
                self._report_due_s = now_s + self._backoff_s(sync)
        else:
            self._report_due_s = inf

    def _is_small_and_missing(self, parcel: int) -> bool:
        return self._state[parcel] == _State.MISSING and self.session.blocks(parcel) <= _ASKED_AS_COMBINATIONS

    def _measure(self, sync: Sync) -> None:
        """Follow the loss from one sync to the next."""
        self._since_sync += 1
        self.counters.datagrams += 1
        if self._sync is not None:
            sent = sync.sequence - self._sync.sequence
            seen = max(0.0, 1 - self._since_sync / sent)
            self.loss += (seen - self.loss) * max(0.05, min(0.5, sent / 2000))
        self._since_sync = 0

    def _backoff_s(self, sync: Sync) -> float:
        """Return how long to wait before a report: of a crowd a few are early, and the others hear of it in time.

        Source: RFC 5740 §5.7.1.2, a truncated exponential distribution.
        """
        steep = log(max(1, sync.crowd)) + 1
        return sync.backoff_ms / 1000 / steep * log1p(self._random() * (exp(steep) - 1))

    def _speaks_up(self, sync: Sync, now_s: float) -> bool:
        if self._is_pressed(now_s) or self._warns:
            return True
        needs, wants = self._demands(sync)
        return bool(needs or wants)

    def _is_pressed(self, now_s: float) -> bool:
        if self._sync is None or self.is_done or now_s - self._reported_s <= _HARDER_S:
            return False
        return self.room <= 1 and self.room < self._sync.room

    @property
    def _warns(self) -> bool:
        """Whether the sender does not know yet that what it sends is altered on the way."""
        return self._is_altered and self._sync is not None and not self._sync.is_strict

    def _demands(self, sync: Sync) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Return the needs and wants that the sync does not promise to fill."""
        promised = {parcel: target for parcel, _, target in sync.repairs}
        plan = sorted(sync.plan)
        needs: list[tuple[int, int]] = []
        wants: list[tuple[int, int]] = []
        for parcel, gathering in self._gatherings.items():
            # What is mended is not waited for until its blocks come again, which somebody else may want.
            if parcel not in promised and any(0 <= parcel - first < count for first, count in plan):
                continue
            if gathering.lacks_blocks:
                if not any(0 <= parcel - first < count for first, count in plan):
                    wants.append((parcel, 1))
                continue
            # Of combinations drawn at random one or two more than are needed are, and of these some are lost.
            needed = gathering.needed
            target = min(0xFFFF, gathering.sent + needed + 1 + (needed > 16) + int(needed * self.loss))
            if target > promised.get(parcel, 0):
                needs.append((parcel, target))
        at = 0
        for first, count in (*plan, (len(self._state), 0)):
            self._want_between(at, first, wants)
            at = max(at, first + count)
        return needs[:REPAIRS_MOST], wants[:RANGES_MOST]

    def _want_between(self, at: int, end: int, wants: list[tuple[int, int]]) -> None:
        """Add the parcels from `at` to before `end` of which there is nothing."""
        find, end = self._state.find, min(end, len(self._state))
        while len(wants) < RANGES_MOST and (at := find(_State.MISSING, at, end)) >= 0:
            first = at
            while at < end and self._state[at] == _State.MISSING:
                at += 1
            wants.append((first, at - first))

    def _report_unless_promised(self, flags: Flag, now_s: float) -> None:
        if self._sync is None or self.left is not None:
            return
        needs, wants = self._demands(self._sync)
        if needs or wants or self._is_pressed(now_s) or self._warns:
            self._report(flags, needs, wants, now_s)

    def _report(self, flags: Flag, needs: list[tuple[int, int]], wants: list[tuple[int, int]], now_s: float) -> None:
        self._counter += 1
        self._reported_s = now_s
        self.counters.reports += 1
        if self.is_done:
            flags |= Flag.DONE
        if self._warns:
            flags |= Flag.ALTERED
        clock_ms = self._sync.clock_ms if self._sync else 0
        self.reports.append(
            Report(
                self.number,
                self._counter,
                clock_ms,
                self._acked,
                flags,
                min(1.0, self.loss),
                min(self.room, 0xFFFF),
                self.done,
                tuple(needs),
                tuple(wants),
            )
        )
