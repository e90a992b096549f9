"""What a sender knows of its receivers: who answers, who holds the others up, who asks for too much."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from math import inf
from statistics import median

from cloner_core.multicast.session import Leaving
from cloner_core.multicast.wire import POLLS_MOST, Flag, Report

WATCHED_MOST = 16
"""Receivers polled with every sync: all of a small group, of a greater one those that lag."""
_RECENT_MOST = 64
_POLLED_PER_S = 200.0
_POLLED_PER_DATAGRAM = 0.01
_POLLS_AHEAD = 128.0
_POLLED_AGAIN_S = 0.05  # one that is watched and does not lag; ten times that for the others
_GATHERING_AGAIN_S = 1.0  # each of those that are watched or were never heard, while the others are sought
_SOUGHT_AGAIN_S = 0.05  # who was never heard, and twice as long after each poll: it may just be opening its socket
_SOUGHT_MOST = 64  # of those that are looked at for who is due
_WATCHED_FIRST = 3  # that are polled for each of the others: by what these say the watched are judged
SILENT_S = 5.0
UNHEARD_S = 20.0
"""Of one that was never heard, since it was polled first: whoever gave it the seat looks into it before."""
_UNANSWERED_MOST = 5
_PATIENCE_S = 0.5  # that the others wait for one receiver, before it leaves
_TRIED = 2  # times that, for which all together may hold the others up that say they have room
_LATE_S = 2.0  # behind the sender's clock
_LATE_FOR_S = 1.5  # after which one who is late does not catch up: a machine that stood still for a while does at once
_LATE_ALONE_S = 10.0  # after which one who is late goes though nobody waits for it: HTTPS is at its speed
_ON_TIME_S = 1.0  # within which one that is on time was heard
_LOSSY, _LOSSY_S = 0.3, 2.0
_TOLD = 10  # syncs in which one that leaves is told so
_TOLD_AGAIN_S = 1.0  # to one that left and speaks all the same: a machine that stood still heard none of them
_TOLD_MOST = 64  # that wait to be told, beyond which nobody is told again
_HEARD_S = 0.5  # of a receiver not heard for so long nobody waits
_STUCK_PARTS = 3
_SHARE = 0.15  # of all datagrams, that a receiver may have as repair which nobody else asked for
_SHARE_LEAST = 1024


@dataclass(slots=True, eq=False)
class Member:
    """One receiver, as its reports tell."""

    number: int
    acked: int
    heard_s: float
    counter: int = 0
    loss: float = 0.0
    room: int = 0xFFFF
    is_behind: bool = False  # when it was heard last: datagrams behind, or without room
    done: int = 0
    is_done: bool = False
    began_s: float = 0.0  # `Members.rest_s` when it came
    wrote_s: float = 0.0  # and when `done` rose last
    left: Leaving | None = None
    told_s: float = -inf  # when it was told again that it left
    unanswered: int = 0
    again_s: float = _SOUGHT_AGAIN_S  # to the next poll, while it was never heard
    sought_s: float = inf  # when it was polled first
    polled_s: float = -inf  # when a poll was last counted as unanswered
    asked_s: float = -inf  # when it was last polled
    waited_s: float = 0.0
    held_s: float = 0.0  # that others with room were not given a parcel, for want of its room
    lossy_since_s: float = inf
    late_since_s: float = inf
    claimed: int = 0  # combinations it alone asked for
    wanted: int = 0  # parcels it had sent again

    @property
    def is_served(self) -> bool:
        return self.left is None and not self.is_done


@dataclass(slots=True)
class Members:
    """All receivers of an epoch. They are few words each, and what is done for each report does not grow with them."""

    members: dict[int, Member] = field(default_factory=dict)
    leavings: deque[tuple[int, Leaving, int]] = field(default_factory=deque)
    """(receiver, reason, how often to say so)."""
    served: int = 0
    heard_count: int = 0
    """How many have ever reported."""
    rest_s: float = 0.0
    """For how long, in all, there were no blocks to be sent: who is not done then has nothing to do but to write."""
    _held_s: float = 0.0  # the same as of each member, of all together
    _numbers: list[int] = field(default_factory=list)
    _unpolled: dict[int, Member] = field(default_factory=dict)  # in the order they came
    _unheard: dict[int, Member] = field(default_factory=dict)  # that were polled, in the order of the last time
    _watched: dict[int, Member] = field(default_factory=dict)
    _recent: dict[int, Member] = field(default_factory=dict)  # those heard last, in that order
    _turn: int = 0
    _tokens: float = 0.0
    _tokens_s: float = 0.0
    _tokens_sequence: int = 0

    def admit(self, number: int, acked: int, now_s: float) -> None:
        """Take in a receiver; `acked` is the sequence sent last."""
        if number not in self.members:
            member = self.members[number] = self._unpolled[number] = Member(number, acked, now_s)
            member.began_s = member.wrote_s = self.rest_s
            self._numbers.append(number)
            self.served += 1
            if len(self._watched) < WATCHED_MOST:
                self._watched[number] = member

    def take(
        self, report: Report, sequence: int, window: int, clock_s: float, now_s: float, *, ending_s: float
    ) -> Member | None:
        """Take a report; return who sent it, or None for one that is old or of somebody who is not served.

        `clock_s` is the sender's clock, which syncs tell; for `ending_s` there have been no blocks to be sent.
        """
        member = self.members.get(report.receiver)
        if member is None or report.counter <= member.counter or report.acked > sequence:
            return None
        if member.left is not None:
            member.counter = report.counter
            self._tell_again(member, member.left, now_s)
            return None
        if not member.counter:
            self.heard_count += 1
            self._forget(member.number, self._unpolled, self._unheard)
        member.counter = report.counter
        member.heard_s = now_s
        member.unanswered = 0
        member.acked = max(member.acked, report.acked)
        member.loss, member.room = report.loss, report.room
        if report.done > member.done:
            member.done, member.wrote_s = report.done, self.rest_s
        if member.is_done or report.flags & Flag.DONE:
            self.settle(member)
            return member
        # Late is who has much to read yet: at a low rate a machine may take its time, and nobody waits for it.
        is_far = sequence - member.acked > window
        is_late = clock_s - report.clock_ms / 1000 > _LATE_S and report.clock_ms and (is_far or ending_s)
        member.late_since_s = min(member.late_since_s, now_s) if is_late else inf
        late_s = now_s - member.late_since_s
        if min(late_s, ending_s) > _LATE_ALONE_S or (is_far and late_s > _LATE_FOR_S and self._is_one_on_time(now_s)):
            self.leave(member.number, Leaving.SLOW)
            return None
        self._note(member)
        member.is_behind = sequence - member.acked > window // 4 or member.room <= 2
        if member.is_behind:
            self._watch(member)
        return member

    def stuck_s(self, member: Member) -> float:
        """Return for how long a receiver has written nothing, of `rest_s`; a third at least of all that it was there.

        So one that writes a parcel now and then does not stay for ever.
        """
        return max(self.rest_s - member.wrote_s, (self.rest_s - member.began_s) / _STUCK_PARTS)

    def _watch(self, member: Member) -> None:
        """Watch one that lags, in place of one that does not when enough are watched."""
        if member.number not in self._watched and len(self._watched) >= WATCHED_MOST:
            spare = next((one for one in self._watched.values() if one.counter and not one.is_behind), None)
            if spare is None:
                return
            del self._watched[spare.number]
        self._watched[member.number] = member

    def _note(self, member: Member) -> None:
        """Count a receiver once among those heard of lately, however often it speaks."""
        self._recent.pop(member.number, None)
        self._recent[member.number] = member
        if len(self._recent) > _RECENT_MOST:
            del self._recent[next(iter(self._recent))]

    def _is_one_on_time(self, now_s: float) -> bool:
        """Return whether anybody gains when one who is late leaves; all are late where the sender or the wire is."""
        return any(
            one.is_served and one.late_since_s == inf and now_s - one.heard_s < _ON_TIME_S
            for one in self._recent.values()
        )

    def settle(self, member: Member) -> None:
        """Take that a receiver has everything."""
        if member.is_served:
            self.served -= 1
        member.is_done = True
        self._forget(member.number, self._unpolled, self._unheard, self._watched)

    def leave(self, number: int, reason: Leaving) -> None:
        """Serve a receiver no more, and have it told so."""
        member = self.members.get(number)
        if member is not None and member.is_served:
            self.served -= 1
            member.left = reason
            self._forget(number, self._unpolled, self._unheard, self._watched)
            self.leavings.append((number, reason, _TOLD))

    def _tell_again(self, member: Member, reason: Leaving, now_s: float) -> None:
        is_waiting = len(self.leavings) >= _TOLD_MOST or any(number == member.number for number, _, _ in self.leavings)
        if now_s - member.told_s >= _TOLD_AGAIN_S and not is_waiting:
            member.told_s = now_s
            self.leavings.append((member.number, reason, 1))

    @staticmethod
    def _forget(number: int, *lists: dict[int, Member]) -> None:
        for one in lists:
            one.pop(number, None)

    def told(self, most: int) -> tuple[tuple[int, int], ...]:
        """Return (receiver, reason) of those to be told of in the next sync."""
        listed = [self.leavings.popleft() for _ in range(min(most, len(self.leavings)))]
        self.leavings.extend((number, reason, times - 1) for number, reason, times in listed if times > 1)
        return tuple((number, int(reason)) for number, reason, _ in listed)

    def heard(self, now_s: float) -> list[Member]:
        """Return for whom a sender may have to wait: those watched that were heard just now."""
        return [one for one in self._watched.values() if now_s - one.heard_s < _HEARD_S]

    def others(self, member: Member, now_s: float) -> list[Member]:
        """Return with whom one is compared: those heard just now, also who is not watched, lest laggards judge alone.

        Who is not heard is no other: nobody gains when one leaves for it.
        """
        known = dict.fromkeys((*self._watched.values(), *self._recent.values()))
        return [
            one
            for one in known
            if one is not member and one.counter and one.is_served and now_s - one.heard_s < _HEARD_S
        ]

    def waited(self, member: Member, seconds: float, ahead: int, now_s: float) -> None:
        """Count what the group waited for one receiver; it leaves when the others are by `ahead` further for long."""
        others = self.others(member, now_s)
        if not others:
            return
        is_behind = median(one.acked for one in others) - member.acked > ahead
        is_fuller = not member.room and median(one.room for one in others) > 2
        if is_behind or is_fuller:
            member.waited_s += seconds
            if member.waited_s > _PATIENCE_S:
                self.leave(member.number, Leaving.SLOW)

    def held(self, member: Member, seconds: float) -> None:
        """Count for how long others with room were not given a parcel for want of one's."""
        member.held_s += seconds
        self._held_s += seconds

    def is_holding(self, member: Member) -> bool:
        """Return whether one says that it has room, and the others waited for it all the same for too long.

        When they waited for several, one after the other, they have less patience with each.
        """
        is_tried = self._held_s > _TRIED * _PATIENCE_S
        return member.room > 0 and member.held_s > (_PATIENCE_S / 8 if is_tried else _PATIENCE_S)

    def common_loss(self) -> float | None:
        """Return the loss that half of those heard of lately exceed; None when nobody was."""
        served = [member.loss for member in self._recent.values() if member.is_served]
        return median(served) if served else None

    def asked(self, member: Member, combinations: int, sent: int, of_all: int) -> None:
        """Count combinations that one receiver asked for beyond all others.

        `sent` datagrams were sent in all; one that is alone may ask for as many as there are blocks, `of_all`.
        """
        member.claimed += combinations
        share = _SHARE * sent if self.served > 1 else max(_SHARE * sent, of_all)
        if member.claimed > min(share, of_all) + _SHARE_LEAST:
            self.leave(member.number, Leaving.GREEDY)

    def wanted(self, member: Member, parcels: int, of_all: int) -> None:
        """Count parcels that are sent again for one receiver."""
        member.wanted += parcels
        if member.wanted > of_all + 16:
            self.leave(member.number, Leaving.GREEDY)

    def review(self, now_s: float) -> None:
        """Let those go that do not answer, and those that lose far more than the others."""
        common = self.common_loss() or 0.0
        self._held_s *= 0.98
        for member in dict.fromkeys((*self._watched.values(), *self._recent.values())):
            member.waited_s *= 0.98
            member.held_s *= 0.98
            if not member.is_served:
                continue
            if member.loss < _LOSSY or common > _LOSSY / 3:
                member.lossy_since_s = inf
            elif member.lossy_since_s == inf:
                member.lossy_since_s = now_s
            elif now_s - member.lossy_since_s > _LOSSY_S:
                self.leave(member.number, Leaving.LOSS)

    def polls(
        self, sequence: int, window: int, now_s: float, *, is_ending: bool, is_gathering: bool = False
    ) -> tuple[tuple[int, int], ...]:
        """Return (first, count) of the receivers to poll now.

        These are: who was never polled; those watched that lag; and of the others some in turn. When nothing is left to
        send, all that are watched; while the sender gathers, who was not heard yet before those that were.
        There are some every second and some for each datagram, however many receivers there are.
        """
        earned = (sequence - self._tokens_sequence) * _POLLED_PER_DATAGRAM
        earned += (now_s - self._tokens_s) * _POLLED_PER_S
        self._tokens = min(_POLLS_AHEAD, self._tokens + earned)
        self._tokens_s, self._tokens_sequence = now_s, sequence
        acked = 0 if is_gathering else sequence if is_ending else sequence - window // 3
        chosen = list(islice(self._next(acked, now_s, is_gathering=is_gathering), int(self._tokens)))
        ranges = _ranges(sorted(chosen))[:POLLS_MOST]
        for first, count in ranges:
            self._tokens -= count
            for number in range(first, first + count):
                self._polled(self.members[number], now_s)
        return ranges

    def _next(self, acked: int, now_s: float, *, is_gathering: bool) -> Iterator[int]:
        yield from self._unpolled
        watched = [one for one in self._watched.values() if one.number not in self._unpolled]
        again_s = _POLLED_AGAIN_S
        if is_gathering:
            again_s = _GATHERING_AGAIN_S
            unheard = islice(self._unheard.values(), _SOUGHT_MOST)
            yield from (one.number for one in unheard if now_s - one.asked_s > one.again_s)
            watched = [one for one in watched if one.counter]
        due = [one for one in watched if one.acked < acked or now_s - one.asked_s > again_s]
        others = self._in_turn(now_s, is_gathering=is_gathering)
        for at, member in enumerate(sorted(due, key=lambda one: one.asked_s), 1):
            yield member.number
            if at % _WATCHED_FIRST == 0:
                yield from islice(others, 1)
        yield from others

    def _in_turn(self, now_s: float, *, is_gathering: bool) -> Iterator[int]:
        for _ in range(min(len(self._numbers), 1024)):
            self._turn = (self._turn + 1) % len(self._numbers)
            member = self.members[self._numbers[self._turn]]
            is_chosen = member.number in self._unpolled or (is_gathering and not member.counter)
            is_new = member.number not in self._watched and now_s - member.asked_s > 10 * _POLLED_AGAIN_S
            if member.is_served and is_new and not is_chosen:
                yield member.number

    def _polled(self, member: Member, now_s: float) -> None:
        member.asked_s = now_s
        member.sought_s = min(member.sought_s, now_s)
        if not member.counter:
            if member.number in self._unheard:
                member.again_s = min(_GATHERING_AGAIN_S, 2 * member.again_s)
            self._forget(member.number, self._unpolled, self._unheard)
            self._unheard[member.number] = member
        # Polls that follow each other before an answer can be there count as one.
        if now_s - member.polled_s < SILENT_S / _UNANSWERED_MOST:
            return
        silent_s = now_s - (member.heard_s if member.counter else member.sought_s)
        if member.unanswered >= _UNANSWERED_MOST and silent_s > (SILENT_S if member.counter else UNHEARD_S):
            self.leave(member.number, Leaving.SILENT)
            return
        member.polled_s = now_s
        member.unanswered += 1


def _ranges(numbers: list[int]) -> tuple[tuple[int, int], ...]:
    """Return sorted numbers as (first, count)."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and number == sum(found[-1]):
            found[-1] = found[-1][0], found[-1][1] + 1
        else:
            found.append((number, 1))
    return tuple(found)
