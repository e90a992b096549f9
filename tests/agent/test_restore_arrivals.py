"""Packs of a session in the order in which they come; what does not come is fetched, and nothing awaited for ever."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_agent.client import PATIENCE_S
from cloner_agent.failures import AbortError
from cloner_agent.restore.arrivals import DEAF_S, LOSSY_S, POISONED_MOST, SILENT_S, Arrivals
from cloner_core.errors import IntegrityError
from cloner_core.image.packmap import PackRef
from cloner_core.multicast.session import Leaving
from cloner_core.seats import SeatLeft, make_parcel
from cloner_multicast.feed import FeedState

PACK = PackRef(bytes(32), 4, 10, 1)


@dataclass
class Session:
    """A session of so many parcels on a node, which gives what it is told in `turns`, one at each look."""

    total: int
    turns: deque[list[int]] = field(default_factory=deque)
    left: Leaving | None = None
    why: str = ""
    now_s: float = 1000.0
    seen: FeedState = field(default_factory=lambda: FeedState(seated_s=1000.0, heard_s=1000.5))
    untold: tuple[int, ...] = ()  # that came, and the node does not know
    given: int = 0
    released: list[int] = field(default_factory=list)
    is_stopped: bool = False
    hears: bool = True
    ends: Leaving | None = None  # when there are no more turns
    assures: Callable[[float], bool] = lambda _: True  # at which times the server says that it is sent

    @property
    def is_ended(self) -> bool:
        return self.left is not None or self.given == self.total

    def arrived(self, wait_s: float | None = None) -> list[int]:
        assert wait_s is not None, "orders of the server would be heard no more"
        self.now_s += wait_s
        if self.hears:
            self.seen = FeedState(loss=self.seen.loss, seated_s=self.seen.seated_s, heard_s=self.now_s)
        if self.assures(self.now_s):
            self.seen = msgspec.structs.replace(self.seen, assured_s=self.now_s)
        came = self.turns.popleft() if self.turns else []
        if not self.turns:
            self.left = self.ends
        self.given += len(came)
        return came

    def find(self, parcel: int) -> memoryview | None:
        return memoryview(make_parcel(b"placed", b"%d" % parcel)) if parcel in self.untold else None

    def release(self, parcel: int) -> None:
        self.released.append(parcel)

    def state(self) -> FeedState:
        return self.seen

    def stop(self) -> None:
        self.is_stopped = True


class Rest:
    def fetch(self, ordinal: int, pack: PackRef) -> tuple[bytes, bytes]:
        return b"over https", b"placed"


@dataclass
class Run:
    arrivals: Arrivals
    told: list[SeatLeft]
    said: list[str]

    def order(self) -> list[int]:
        return [ordinal for ordinal in self.arrivals.order() if ordinal is not None]


def _run(sit: Session | str, total: int, tick: Callable[[str], None] | None = None) -> Run:
    told: list[SeatLeft] = []
    said: list[str] = []
    clock = (lambda: 0.0) if isinstance(sit, str) else lambda: sit.now_s
    return Run(
        Arrivals(lambda: sit, Rest(), total, leave=told.append, tick=tick or said.append, clock=clock), told, said
    )


@given(
    st.integers(1, 30).flatmap(lambda total: st.tuples(st.just(total), st.permutations(range(total)))),
    st.data(),
)
def test_every_pack_is_given_once_however_many_of_them_come(case: tuple[int, list[int]], data: st.DataObject) -> None:
    total, come = case
    count = data.draw(st.integers(0, total))
    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=5)))
    turns = deque(come[start:end] for start, end in zip([0, *cuts], [*cuts, count], strict=True))
    session = Session(total, turns, ends=Leaving.SLOW)
    made = _run(session, total)
    order = made.order()
    assert sorted(order) == list(range(total))
    assert order[:count] == come[:count]
    assert made.arrivals.came == count


def test_when_all_has_come_the_session_is_told_after_the_last_was_written() -> None:
    session = Session(3, deque([[2], [0, 1]]))
    made = _run(session, 3)
    assert made.order() == [2, 0, 1]
    made.arrivals.written(2)
    assert (made.told, session.is_stopped) == ([], False)
    made.arrivals.written(3)
    made.arrivals.written(3)
    assert [(left.why, left.parcels, left.heard) for left in made.told] == [("", 3, True)]
    assert session.is_stopped
    assert made.arrivals.why == ""


def test_one_that_was_sent_away_with_everything_has_everything() -> None:
    session = Session(2, deque([[1], [0]]), ends=Leaving.SLOW)
    made = _run(session, 2)
    assert made.order() == [1, 0]
    made.arrivals.written(2)
    assert [(left.why, left.parcels) for left in made.told] == [("", 2)]


def test_a_session_that_has_no_seat_is_not_left() -> None:
    made = _run("the session ended", 3)
    assert made.order() == [0, 1, 2]
    made.arrivals.written(3)
    made.arrivals.close()
    assert made.told == []
    assert made.arrivals.why == "the session ended"
    assert made.said == ["over HTTPS (the session ended)"]


def test_a_node_that_hears_nothing_goes_over_https_in_time() -> None:
    session = Session(3, seen=FeedState(), hears=False)
    made = _run(session, 3)
    assert made.order() == [0, 1, 2]
    assert DEAF_S < session.now_s - 1000 < DEAF_S + 1
    ((left),) = made.told
    assert (left.parcels, left.heard) == (0, False)
    assert "multicast does not reach this node" in left.why
    assert session.is_stopped


def test_it_is_deaf_too_when_the_next_epoch_is_not_heard() -> None:
    session = Session(3, deque([[1]]), seen=FeedState(seated_s=1040.0, heard_s=1040.0), hears=False)
    made = _run(session, 3)
    assert made.order() == [1, 0, 2]
    assert 1040 + DEAF_S < session.now_s < 1040 + DEAF_S + 1


def test_one_that_hears_nothing_of_what_is_sent_does_not_wait_for_ever() -> None:
    session = Session(3, deque([[1]]), hears=False)
    made = _run(session, 3)
    assert made.order() == [1, 0, 2]
    assert SILENT_S < session.now_s - 1000.5 < SILENT_S + 1
    assert made.arrivals.why == "nothing arrived for 60 s"


def test_while_the_server_has_no_sender_it_is_waited_for_as_by_any_request() -> None:
    session = Session(3, deque([[1]]), hears=False, assures=lambda _: False)
    made = _run(session, 3)
    assert made.order() == [1, 0, 2]
    assert PATIENCE_S < session.now_s - 1000.5 < PATIENCE_S + 1
    assert made.arrivals.why == "nothing arrived for 30 min, and the server has no sender"
    assert "over multicast: waiting for the server, and its next sender" in made.said


@pytest.mark.parametrize(("heard_s", "most_s"), [(1000.5, SILENT_S), (1000.0, DEAF_S)], ids=["heard", "never heard"])
def test_silence_counts_only_while_the_server_says_that_something_is_sent(heard_s: float, most_s: float) -> None:
    back_s = 1600.0
    session = Session(3, hears=False, assures=lambda now_s: now_s < 1003 or now_s > back_s)
    session.seen = FeedState(seated_s=1000.0, heard_s=heard_s)
    made = _run(session, 3)
    assert made.order() == [0, 1, 2]
    assert most_s - 1 < session.now_s - back_s < most_s + 1


def test_an_answer_that_is_lost_now_and_then_does_not_prolong_the_waiting() -> None:
    session = Session(3, deque([[1]]), hears=False, assures=lambda now_s: now_s % 4 < 0.5)
    made = _run(session, 3)
    assert made.order() == [1, 0, 2]
    assert SILENT_S < session.now_s - 1000.5 < SILENT_S + 1


def test_who_waited_for_the_server_goes_on_with_its_next_sender() -> None:
    session = Session(3, deque([[1], *[[]] * 3000, [0], [2]]), hears=False, assures=lambda _: False)

    def tick(_: str) -> None:
        if session.now_s > 1500 and not session.hears:
            session.seen, session.hears = FeedState(seated_s=session.now_s, heard_s=session.now_s), True

    made = _run(session, 3, tick)
    assert made.order() == [1, 0, 2]
    assert (made.arrivals.why, made.told) == ("", [])


def test_one_to_which_forged_parcels_come_does_not_wait_for_more_of_them() -> None:
    session = Session(3, seen=FeedState(poisoned=POISONED_MOST + 1, seated_s=1, heard_s=1001), hears=False)
    made = _run(session, 3)
    assert made.order() == [0, 1, 2]
    assert "forges" in made.told[0].why


def test_one_that_loses_most_for_long_goes_over_https() -> None:
    session = Session(9, deque([[0], [1], *[[]] * 40]), seen=FeedState(loss=0.31, seated_s=1000, heard_s=1001))
    made = _run(session, 9)
    assert made.order() == list(range(9))
    assert LOSSY_S < session.now_s - 1000 < LOSSY_S + 1
    assert made.told[0].why == "31% of what is sent does not arrive"


def test_one_that_loses_much_for_a_moment_stays() -> None:
    session = Session(4, deque([[0], *[[]] * 20, [1], *[[]] * 20, [2], *[[]] * 20, [3]]))
    said = 0

    def tick(_: str) -> None:
        nonlocal said
        said += 1
        session.seen = msgspec.structs.replace(session.seen, loss=0.9 if said % 20 else 0.1)

    made = _run(session, 4, tick)
    assert made.order() == [0, 1, 2, 3]
    assert made.arrivals.why == ""


@pytest.mark.parametrize(
    ("why", "shown"), [("", "it lost far more than the others"), ("an admin stopped it", "an admin stopped it")]
)
def test_the_reason_is_the_most_that_is_known(why: str, shown: str) -> None:
    session = Session(3, deque([[0]]), ends=Leaving.LOSS, why=why)
    made = _run(session, 3)
    assert made.order() == [0, 1, 2]
    assert made.arrivals.why == made.told[0].why == shown
    assert made.said[-1] == f"over HTTPS ({shown})"


def test_what_came_unnoticed_is_not_fetched_again() -> None:
    session = Session(3, deque([[0]]), ends=Leaving.SLOW, untold=(2,))
    made = _run(session, 3)
    assert made.order() == [0, 1, 2]
    assert made.told[0].parcels == 2
    assert made.arrivals.fetch(2, PACK) == (b"2", b"placed")
    assert made.arrivals.fetch(1, PACK) == (b"over https", b"placed")


def test_a_parcel_that_is_none_is_damage() -> None:
    class Broken(Session):
        def find(self, parcel: int) -> memoryview | None:
            return memoryview(b"\xff\xff\xff\xff")

    made = _run(Broken(1, deque([[0]])), 1)
    made.order()
    with pytest.raises(IntegrityError, match=PACK.digest.hex()):
        made.arrivals.fetch(0, PACK)


def test_what_is_written_is_released_to_the_session() -> None:
    session = Session(1, deque([[0]]))
    made = _run(session, 1)
    made.arrivals.release(0)  # before there is a seat: over HTTPS nothing is to be released
    assert session.released == []
    made.order()
    made.arrivals.release(0)
    assert session.released == [0]


def test_an_order_of_the_server_ends_the_waiting() -> None:
    session = Session(2, deque([[0]]))
    said: list[str] = []

    def tick(text: str) -> None:
        said.append(text)
        if len(said) > 10:
            raise AbortError("enough")

    made = _run(session, 2, tick)
    with pytest.raises(AbortError):
        made.order()
    made.arrivals.close()
    assert session.is_stopped
    assert made.told == []
    assert said[0] == "over multicast: waiting for the session to begin"
    assert said[-1] == "over multicast, loss 0.0%"
