"""Whom a sender serves on: who stood still for a while, and who falls behind for good."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import inf

from cloner_core.multicast.members import WATCHED_MOST, Members
from cloner_core.multicast.session import Leaving
from cloner_core.multicast.wire import Flag, Report

WINDOW = 5600


class Group:
    """Receivers that report ten times a second; `behind` says by how many seconds, at a time."""

    def __init__(self, *behind: Callable[[float], float], datagrams_per_s: int = 80_000, ends_s: float = inf) -> None:
        self.members = Members()
        self._ends_s = ends_s
        self._per_s = datagrams_per_s
        self._behind = dict(enumerate(behind, 1))
        for number in self._behind:
            self.members.admit(number, 0, 0.0)

    def run(self, seconds: int) -> list[Leaving | None]:
        for turn in range(10, 10 * seconds):
            now_s = turn / 10
            for number, behind in self._behind.items():
                seen_s = max(0.001, now_s - behind(now_s))
                acked = int(seen_s * self._per_s)
                report = Report(number, turn, round(1000 * seen_s), acked, Flag(0), 0.0, 16, 0, (), ())
                self.members.take(
                    report, int(now_s * self._per_s), WINDOW, now_s, now_s, ending_s=max(0.0, now_s - self._ends_s)
                )
        return [one.left for one in self.members.members.values()]


def on_time(_: float) -> float:
    return 0.0


def stood_still(now_s: float) -> float:
    """For six seconds nothing was read; the datagrams waited, and are read ten times as fast as they came."""
    return max(0.0, 6.0 - 9 * (now_s - 10)) if now_s >= 10 else 0.0


def falls_behind(now_s: float) -> float:
    """It does a fifth of what comes."""
    return 0.8 * max(0.0, now_s - 5)


def test_a_machine_that_stood_still_and_catches_up_is_served_on() -> None:
    assert Group(stood_still, on_time).run(30) == [None, None]


def test_one_that_falls_behind_leaves_within_five_seconds_and_the_other_stays() -> None:
    assert Group(falls_behind, on_time).run(9) == [None, None]
    assert Group(falls_behind, on_time).run(10) == [Leaving.SLOW, None]


def test_nobody_leaves_where_all_fall_behind() -> None:
    assert Group(falls_behind, falls_behind).run(30) == [None, None]
    assert Group(falls_behind).run(30) == [None]


def test_a_machine_with_little_to_read_may_take_its_time() -> None:
    assert Group(falls_behind, on_time, datagrams_per_s=260).run(20) == [None, None]


def test_one_that_is_alone_and_behind_for_long_after_the_last_block_leaves() -> None:
    """It takes fewer datagrams than there are syncs: multicast would never end for it, HTTPS goes at its speed."""
    assert Group(falls_behind, datagrams_per_s=260, ends_s=20).run(30) == [None]
    assert Group(falls_behind, datagrams_per_s=260, ends_s=20).run(31) == [Leaving.SLOW]
    assert Group(on_time, datagrams_per_s=260, ends_s=20).run(60) == [None]
    assert Group(stood_still, datagrams_per_s=260, ends_s=10).run(30) == [None]


def lagging(behind: set[int], *, of: int, rounds: int, liars: frozenset[int] = frozenset()) -> Members:
    """Return members of whom some are 20,000 datagrams behind without room, after as many polls at a tenth of a second.

    Whoever is waited for costs the group 50 ms each time; `liars` say unasked what they have to say.
    """
    members = Members()
    for number in range(1, of + 1):
        members.admit(number, 0, 0.0)
    for turn in range(1, rounds + 1):
        now_s, sequence = turn / 10, 30_000 + turn
        polled = {
            number
            for first, count in members.polls(sequence, WINDOW, now_s, is_ending=False)
            for number in range(first, first + count)
        }
        for number in sorted(polled | liars):
            lags = number in behind or number in liars
            acked, room = (sequence - 20_000, 0) if lags else (sequence, 16)
            report = Report(number, turn, round(1000 * now_s), acked, Flag(0), 0.0, room, 0, (), ())
            members.take(report, sequence, WINDOW, now_s, now_s, ending_s=0.0)
        slowest = min(members.heard(now_s), key=lambda one: one.acked, default=None)
        if slowest is not None and sequence - slowest.acked > WINDOW:
            members.waited(slowest, 0.05, WINDOW // 2, now_s)
    return members


def test_of_a_large_group_those_are_waited_for_that_lag() -> None:
    members = lagging({30}, of=40, rounds=3)
    assert members.members[30] in members.heard(0.3)
    assert len(members.heard(0.3)) == WATCHED_MOST
    assert lagging({30}, of=40, rounds=200).members[30].left is Leaving.SLOW


def test_all_that_are_watched_are_polled_and_some_of_the_others() -> None:
    members = Members()
    for number in range(1, 41):
        members.admit(number, 0, 0.0)
    times: Counter[int] = Counter()
    for turn in range(1, 901):  # so slowly that there is no poll for each of the watched
        for first, count in members.polls(turn, WINDOW, turn / 50, is_ending=True):
            times.update(range(first, first + count))
    assert set(times) == set(range(1, 41))
    watched, others = min(times[one] for one in range(1, 17)), min(times[one] for one in range(17, 41))
    assert watched > 3 * others > 60


def test_liars_that_lag_leave_one_after_the_other_though_they_are_all_that_is_watched() -> None:
    liars = frozenset(range(21, 37))
    members = lagging(set(), of=60, rounds=400, liars=liars)
    assert {number for number, one in members.members.items() if one.left} == liars


def test_one_that_left_and_speaks_is_told_again_once_a_second() -> None:
    members = Members()
    members.admit(1, 0, 0.0)
    members.leave(1, Leaving.SLOW)
    told = [members.told(32) for _ in range(12)]
    assert told == [((1, Leaving.SLOW),)] * 10 + [()] * 2
    again: list[tuple[int, int]] = []
    for counter in range(1, 51):
        assert members.take(_lost(1, counter, 0.0), 0, WINDOW, 0.0, counter / 10, ending_s=0.0) is None
        again += members.told(32)
    assert again == [(1, Leaving.SLOW)] * 5
    members.take(_lost(1, 50, 0.0), 0, WINDOW, 0.0, 60.0, ending_s=0.0)
    assert members.told(32) == (), "what was said before is no word of it"


def test_a_flood_of_those_that_left_makes_no_queue() -> None:
    members = Members()
    for number in range(1, 1001):
        members.admit(number, 0, 0.0)
        members.leave(number, Leaving.GREEDY)
    while members.told(32):
        pass
    for counter in range(1, 6):
        for number in range(1, 1001):
            members.take(_lost(number, counter, 0.0), 0, WINDOW, 0.0, 2.0 * counter, ending_s=0.0)
    assert len(members.leavings) <= 64


def test_who_speaks_often_counts_once_in_the_loss_of_all() -> None:
    members = Members()
    for number in range(1, 6):
        members.admit(number, 0, 0.0)
    for number in range(1, 5):
        members.take(_lost(number, 1, 0.01), 0, WINDOW, 0.0, 0.0, ending_s=0.0)
    for counter in range(1, 200):
        members.take(_lost(5, counter, 0.9), 0, WINDOW, 0.0, 0.0, ending_s=0.0)
    assert members.common_loss() == 0.01


def test_the_loss_of_all_is_of_those_heard_last() -> None:
    members = Members()
    for number in range(1, 200):
        members.admit(number, 0, 0.0)
        members.take(_lost(number, 1, 0.5 if number < 100 else 0.01), 0, WINDOW, 0.0, 0.0, ending_s=0.0)
    assert members.common_loss() == 0.01
    for number in range(1, 100):
        members.take(_lost(number, 2, 0.5), 0, WINDOW, 0.0, 0.0, ending_s=0.0)
    assert members.common_loss() == 0.5


def _lost(number: int, counter: int, loss: float) -> Report:
    return Report(number, counter, 0, 0, Flag(0), loss, 16, 0, (), ())
