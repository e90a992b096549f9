"""A sender: before it begins it asks who hears, and sends nothing else; and for whom it waits then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from cloner_core.multicast.members import SILENT_S, UNHEARD_S
from cloner_core.multicast.receiver import Receiver
from cloner_core.multicast.sender import WAIT_S, Pace, Sender
from cloner_core.multicast.session import Leaving, Parcel, Session
from cloner_core.multicast.wire import Flag, Kind, Phase, Report, Run, Sync

PARCELS, SIZE = 5, 3000
SESSION = Session(1, [Parcel(b"", SIZE)] * PARCELS, block_bytes=100)


@dataclass
class Room:
    """A sender, and receivers that hear all of it at once."""

    first: int = 0
    session: Session = SESSION
    writers: set[int] = field(default_factory=lambda: set(range(100)))  # the others keep what they have got
    misses: Callable[[Run], bool] = lambda _: False  # what no receiver hears
    now_s: float = 0.0
    said: list[Run | Sync] = field(default_factory=list)
    receivers: list[Receiver] = field(default_factory=list)

    def __post_init__(self) -> None:
        pace = Pace(1e8, 1e6)
        parcels = range(self.first, len(self.session.parcels))
        self.sender = Sender(self.session, lambda _: bytes(SIZE), pace, 0.0, parcels=parcels, is_gathering=True)

    def seat(self, number: int, *, hears: bool = True) -> None:
        self.sender.admit(number, self.now_s)
        if hears:
            self.receivers.append(Receiver(self.session, number, lambda: 0.5, self.now_s))

    def pass_time(self, seconds: float) -> None:
        ends_s = self.now_s + seconds
        while self.now_s < ends_s:
            message = self.sender.next(self.now_s)
            if message is None:
                self.now_s = max(self.sender.due_s(), self.now_s + WAIT_S)
                continue
            self.said.append(message)
            if isinstance(message, Run) and self.misses(message):
                continue
            for receiver in self.receivers:
                receiver.accept([message], self.now_s)
                receiver.tick(self.now_s)
                while receiver.ready and receiver.number in self.writers:
                    receiver.settle(receiver.ready.popleft().parcel, is_good=True)
                for report in receiver.reports:
                    self.sender.receive(report, self.now_s)
                receiver.reports.clear()

    @property
    def runs(self) -> list[Run]:
        return [one for one in self.said if isinstance(one, Run)]


def test_a_sender_that_gathers_hears_everybody_and_sends_no_data() -> None:
    room = Room()
    for number in range(40):
        room.seat(number)
    room.pass_time(1.0)
    assert room.sender.members.heard_count == 40
    assert room.runs == []
    assert 5 <= len(room.said) <= 60
    assert all(one.phase is Phase.SENDING and one.plan == ((0, PARCELS),) for one in room.said if isinstance(one, Sync))


@pytest.mark.parametrize("mute", [0, 300])
def test_of_thousands_that_sit_down_together_each_is_heard_before_it_would_count_as_mute(mute: int) -> None:
    """The server waits 15 s; nothing is wanted while a sender gathers, so only who is polled speaks."""
    sender = Sender(SESSION, lambda _: bytes(SIZE), Pace(1e8, 1e6), 0.0, is_gathering=True)
    everybody = range(1, 2001)
    for number in everybody:
        sender.admit(number, 0.0)
    now_s, said = 0.0, 0
    while now_s < 15:
        message = sender.next(now_s)
        assert isinstance(message, Sync)
        for first, count in message.polls:
            for number in range(max(first, mute + 1), first + count):
                said += 1
                report = Report(number, said, message.clock_ms, message.sequence, Flag.POLLED, 0.0, 16, 0, (), ())
                sender.receive(report, now_s)
        now_s = sender.due_s()
    assert sender.members.heard_count == len(everybody) - mute
    assert not any(one.left for one in sender.members.members.values())


def test_who_spoke_before_its_first_poll_is_polled_as_the_others() -> None:
    sender = Sender(SESSION, lambda _: bytes(SIZE), Pace(1e8, 1e6), 0.0, is_gathering=True)
    sender.admit(1, 0.0)
    sender.receive(Report(1, 1, 0, 0, Flag(0), 0.0, 16, 0, (), ()), 0.0)
    message = sender.next(0.1)
    assert isinstance(message, Sync)
    assert message.polls == ((1, 1),)


def test_it_sends_everything_once_it_has_begun() -> None:
    room = Room()
    room.seat(1)
    room.pass_time(3.0)
    room.sender.begin(room.now_s)
    room.pass_time(1.0)
    assert [one.done for one in room.receivers] == [PARCELS]
    assert room.sender.is_finished
    assert room.sender.sent.blocks == sum(map(SESSION.blocks, range(PARCELS)))


def test_who_comes_while_it_gathers_is_heard_as_well() -> None:
    room = Room()
    room.seat(1)
    room.pass_time(2.0)
    room.seat(2)
    room.pass_time(0.3)
    assert room.sender.members.heard_count == 2


def test_who_got_its_seat_before_it_could_hear_is_asked_again_soon_and_then_once_a_second() -> None:
    room = Room()
    room.seat(1)
    room.seat(2, hears=False)
    room.pass_time(0.2)
    room.receivers.append(Receiver(SESSION, 2, lambda: 0.5, room.now_s))
    room.pass_time(0.3)
    assert room.sender.members.heard_count == 2
    room.seat(3, hears=False)
    room.pass_time(10.0)
    polls = [
        one for one in room.said if isinstance(one, Sync) and any(0 <= 3 - first < count for first, count in one.polls)
    ]
    assert 10 <= len(polls) <= 15


@pytest.mark.parametrize("was_heard", [True, False])
def test_who_is_not_heard_leaves_before_it_begins(was_heard: bool) -> None:
    room = Room()
    room.seat(1)
    room.seat(2, hears=was_heard)
    room.pass_time(0.5)
    room.receivers = room.receivers[:1]
    patience_s = SILENT_S if was_heard else UNHEARD_S
    room.pass_time(patience_s - 1)
    assert room.sender.members.served == 2
    room.pass_time(3)
    members = room.sender.members.members
    assert (members[1].left, members[2].left) == (None, Leaving.SILENT)


def test_what_was_sent_in_another_epoch_comes_when_it_is_wanted() -> None:
    room = Room(first=3)
    room.seat(1)
    room.pass_time(1.0)
    assert room.runs == []
    room.sender.begin(room.now_s)
    room.pass_time(1.0)
    assert [one.parcel for one in room.runs][:1] == [3]
    assert [one.done for one in room.receivers] == [PARCELS]


def test_a_session_that_is_stopped_while_it_gathers_is_over() -> None:
    room = Room()
    room.seat(1)
    room.pass_time(0.5)
    room.sender.close()
    room.pass_time(2.0)
    assert room.sender.is_over
    assert room.receivers[0].left is Leaving.OVER
    assert room.runs == []


@pytest.mark.parametrize(("cap_bps", "wanted"), [(4e6, 4e6), (1e9, 1e8)])
def test_another_rate_holds_at_once_when_it_is_lower(cap_bps: float, wanted: float) -> None:
    room = Room()
    room.sender.rate.limit(cap_bps, 1e6)
    assert room.sender.rate.rate_bps == wanted
    for _ in range(100):
        room.sender.rate.observe(0.0)
    assert room.sender.rate.rate_bps == cap_bps


@pytest.mark.parametrize("others_hear", [False, True], ids=["alone", "with others"])
def test_who_writes_slowly_leaves_only_for_others_that_are_there(others_hear: bool) -> None:
    room = Room(session=Session(1, [Parcel(b"", SIZE)] * 40, block_bytes=100, window_parcels=4), writers=set())
    room.seat(1)
    room.seat(2, hears=False)
    room.pass_time(0.3)
    room.sender.begin(room.now_s)
    room.pass_time(0.3)
    if others_hear:
        room.seat(3)
        room.writers.add(3)
    room.pass_time(1.0)
    left = room.sender.members.members[1].left
    assert left is (Leaving.SLOW if others_hear else None)


def test_who_comes_after_everybody_has_left_gets_other_combinations() -> None:
    room = Room(misses=lambda run: run.parcel == 2)
    room.seat(0)
    room.sender.begin(0.0)
    room.pass_time(1.0)
    room.sender.dismiss(0, Leaving.SLOW)
    room.pass_time(0.5)
    assert room.sender.is_finished
    room.misses = lambda run: run.parcel == 2 and run.kind == Kind.BLOCKS
    room.seat(1)
    room.pass_time(2.0)
    assert room.receivers[1].is_done
    sent = [run.first + at for run in room.runs if run.kind == Kind.COMBINATIONS for at in range(run.count)]
    assert len(sent) >= 60, "both had to be sent what mends a parcel"
    assert len(sent) == len(set(sent))


def test_it_is_finished_as_soon_as_everybody_has_everything() -> None:
    room = Room()
    for number in range(2):
        room.seat(number, hears=False)
    room.sender.begin(0.0)
    room.pass_time(0.03)
    acked = max(message.sequence for message in room.said)
    while room.sender.next(room.now_s):
        pass  # the next sync is not due
    for number in range(2):
        assert not room.sender.is_finished
        done = Report(number, 1, 0, acked, Flag.DONE, 0.0, 16, PARCELS, (), ())
        room.sender.receive(done, room.now_s)
    assert isinstance(room.sender.next(room.now_s), Sync)  # without waiting for its time
    assert room.sender.is_finished
