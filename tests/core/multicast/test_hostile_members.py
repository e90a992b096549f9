"""Members have the group's key: whatever they say in anybody's name, nothing breaks, grows or is handed on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloner_core.image.digest import digest
from cloner_core.multicast.combining import Workbench
from cloner_core.multicast.content import Content
from cloner_core.multicast.receiver import Receiver
from cloner_core.multicast.sender import Pace, Sender
from cloner_core.multicast.session import Leaving, Parcel, Session
from cloner_core.multicast.wire import Flag, Kind, Phase, Report, Run, Sync

BLOCK, BLOCKS, PARCELS, WINDOW = 4, 7, 9, 4
TRUTH = [bytes([parcel + 1]) * (BLOCK * BLOCKS) for parcel in range(PARCELS)]
CONTENT = Content(bytes(16))
SENT = [bytes(CONTENT.encrypted(parcel, data)) for parcel, data in enumerate(TRUTH)]
SESSION = Session(1, tuple(Parcel(digest(data), len(data)) for data in TRUTH), BLOCK, WINDOW)

small = st.integers(0, PARCELS + 1)
numbers = small | st.integers(0, 0xFFFFFFFF)
u16 = st.integers(0, 20) | st.integers(0, 0xFFFF)
ranges = st.lists(st.tuples(numbers, numbers), max_size=16).map(tuple)
runs = st.builds(
    Run,
    kind=st.sampled_from((Kind.BLOCKS, Kind.COMBINATIONS)),
    parcel=numbers,
    first=u16,
    count=st.integers(1, 9),
    sequence=numbers,
    payload=st.integers(0, 9).map(lambda blocks: bytes(blocks * BLOCK)) | st.binary(max_size=40),
)
syncs = st.builds(
    Sync,
    sequence=numbers,
    clock_ms=numbers,
    phase=st.sampled_from((Phase.SENDING, Phase.FINISHING)),
    backoff_ms=u16,
    crowd=numbers,
    repairs=st.lists(st.tuples(numbers, u16, u16), max_size=64).map(tuple),
    plan=ranges,
    polls=st.lists(st.tuples(numbers, u16), max_size=32).map(tuple),
    leavings=st.lists(st.tuples(st.integers(6, 9), st.integers(0, 255)), max_size=3).map(tuple),
)
reports = st.builds(
    Report,
    receiver=st.integers(0, 4),
    counter=st.integers(0, 60),
    clock_ms=numbers,
    acked=numbers,
    flags=st.integers(0, 7).map(Flag),
    loss=st.floats(0, 1),
    room=u16,
    done=numbers,
    needs=st.lists(st.tuples(numbers, u16), max_size=64).map(tuple),
    wants=ranges,
)


def truth(sequence: int) -> list[Run | Sync]:
    """What an honest sender says: every block, and that there is no more."""
    said: list[Run | Sync] = [
        Run(Kind.BLOCKS, parcel, 0, BLOCKS, sequence + parcel * BLOCKS, data) for parcel, data in enumerate(SENT)
    ]
    return said


@settings(max_examples=50)
@given(st.lists(runs | syncs, max_size=30), st.floats(0, 0.999))
def test_a_receiver_holds_its_window_and_hands_on_nothing_wrong(heard: list[Run | Sync], chance: float) -> None:
    receiver = Receiver(SESSION, 3, lambda: chance, 0.0)
    right = 0
    for at, message in enumerate([*heard, *truth(1), *truth(1000)]):
        now_s = at * 0.3
        receiver.accept([message], now_s)
        receiver.tick(now_s)
        assert receiver.room >= 0
        assert len(receiver._gatherings) + receiver._held <= WINDOW
        assert len(receiver.reports) <= 1
        receiver.reports.clear()
        while receiver.ready:
            gathering = receiver.ready.popleft()
            data = gathering.finish(SESSION.parcels[gathering.parcel].digest, CONTENT, Workbench())
            receiver.settle(gathering.parcel, is_good=data is not None)
            if data is not None:
                assert bytes(data) == TRUTH[gathering.parcel]
                right += 1
    assert receiver.done == right
    assert PARCELS - right == len(receiver.missing_parcels())


@settings(max_examples=30)
@given(st.lists(reports, max_size=40), st.integers(1, 5))
def test_a_sender_serves_within_its_budgets_whatever_it_is_told(told: list[Report], steps: int) -> None:
    sender = Sender(SESSION, SENT.__getitem__, Pace(1e9, 1e7), 0.0)
    for number in range(4):  # 4 was never admitted
        sender.admit(number, 0.0)
    now_s = 0.0
    for report in told:
        for _ in range(steps):
            now_s += 0.001
            sender.next(now_s)
        sender.receive(report, now_s)
        assert len(sender._repairs) <= 64
        assert len(sender._plan.ranges(1 << 20)) <= 1024
        assert sender.progress <= PARCELS
    while not sender.is_over and now_s < 60:
        now_s = max(now_s + 0.001, sender.due_s())
        message = sender.next(now_s)
        if isinstance(message, Run):
            assert message.parcel < PARCELS
            assert message.first + message.count <= 0x10000
        if sender.is_finished:
            sender.close()
    assert sender.is_over  # those that fell silent were let go
    # Four members, each with its share of the repair and each parcel again.
    assert sender.sent.combinations <= 4 * (1024 + PARCELS * BLOCKS + 2 * (BLOCKS + 64))
    assert sender.sent.blocks <= BLOCKS * (PARCELS + 4 * (PARCELS + 16 + PARCELS))


def test_a_receiver_that_the_server_knows_to_be_done_is_not_waited_for() -> None:
    sender = Sender(SESSION, SENT.__getitem__, Pace(1e9, 1e7), 0.0)
    sender.admit(1, 0.0)
    sender.settle(1)
    sender.settle(2)  # of another epoch
    for step in range(1000):
        message = sender.next(step * 0.001)
        assert not isinstance(message, Sync) or message.polls == ()
    assert sender.is_finished


@pytest.mark.parametrize("by_server", [False, True], ids=["said so itself", "the server said so"])
def test_a_receiver_that_has_everything_is_given_nothing_and_may_say_that_bytes_were_altered(by_server: bool) -> None:
    sender = Sender(SESSION, SENT.__getitem__, Pace(1e9, 1e7), 0.0)
    sender.admit(1, 0.0)
    if by_server:
        sender.settle(1)
    else:
        sender.receive(Report(1, 1, 0, 0, Flag.DONE, 0.0, 16, PARCELS, (), ()), 0.0)
    needs = tuple((parcel, 0xFFFF) for parcel in range(PARCELS))
    said = [sender.next(step * 0.001) for step in range(100)]
    for step in range(100, 1000):
        acked = max(message.sequence for message in said if message is not None)
        asks = Report(1, step, 0, acked, Flag.ALTERED, 0.9, 0, 0, needs, ((0, PARCELS),))
        sender.receive(asks, step * 0.001)
        said.append(sender.next(step * 0.001))
    assert sender.is_finished
    assert sender.is_strict
    assert (sender.sent.blocks, sender.sent.combinations) == (PARCELS * BLOCKS, 0)
    assert all(not message.polls for message in said if isinstance(message, Sync))


@pytest.mark.parametrize("writes_every_s", [None, 60.0], ids=["nothing", "a parcel now and then"])
def test_a_member_that_answers_and_never_finishes_is_seen_to_be_stuck(writes_every_s: float | None) -> None:
    """The server gives it 300 s (`cloner_server.tasks.reviewing`)."""
    sender = Sender(SESSION, SENT.__getitem__, Pace(1e9, 1e7), 0.0)
    sender.admit(1, 0.0)
    now_s, said = 0.0, 0
    while now_s < 1000:
        message = sender.next(now_s)
        if isinstance(message, Sync) and message.polls:
            said += 1
            done = int(now_s / writes_every_s) if writes_every_s else 3
            asks = ((said % PARCELS, 1),) if not said % 500 else ()  # what it wants again is not sent without end
            report = Report(1, said, message.clock_ms, message.sequence, Flag.POLLED, 0.0, 16, done, (), asks)
            sender.receive(report, now_s)
        now_s = max(now_s + 0.001, sender.due_s())
        stuck_s = sender.members.stuck_s(sender.members.members[1])
        if sender.members.members[1].left is not None or stuck_s >= 300:
            break
    assert now_s < (920 if writes_every_s else 320)


def test_of_a_member_that_waits_for_what_is_sent_nobody_says_that_it_is_stuck() -> None:
    sender = Sender(SESSION, SENT.__getitem__, Pace(1e9, 1e7), 0.0, is_gathering=True)
    sender.admit(1, 0.0)
    for step in range(100):
        sender.next(step * 0.1)
    sender.begin(10.0)
    now_s = 10.0
    while not sender.is_quiet:
        sender.next(now_s)
        now_s += 0.001
    assert sender.members.stuck_s(sender.members.members[1]) < 0.5


def test_a_sender_that_is_closed_says_so_and_is_silent() -> None:
    sender = Sender(SESSION, SENT.__getitem__, Pace(1e9, 1e7), 0.0)
    sender.admit(1, 0.0)
    sender.close()
    said = [message for at in range(4000) if (message := sender.next(at * 0.001)) is not None]
    assert len(said) == 8
    assert all(isinstance(message, Sync) and message.phase == Phase.OVER for message in said)
    receiver = Receiver(SESSION, 1, lambda: 0.5, 0.0)
    receiver.accept(said, 1.0)
    assert receiver.left == Leaving.OVER


def test_what_is_said_again_keeps_nobody_in_an_epoch() -> None:
    receiver = Receiver(SESSION, 1, lambda: 0.5, 0.0)
    said: list[Run | Sync] = [Run(Kind.BLOCKS, 0, 0, 4, 1, TRUTH[0][: 4 * BLOCK]), Sync(5, 1, Phase.SENDING, 10, 1)]
    receiver.accept(said, 1.0)
    for at_s in range(2, 6):
        receiver.accept(said, float(at_s))
    assert receiver.is_stale(5.0)
    receiver.accept([Sync(6, 2, Phase.SENDING, 10, 1)], 5.0)
    assert not receiver.is_stale(5.0)


def test_a_receiver_that_was_told_to_leave_asks_for_nothing_more() -> None:
    receiver = Receiver(SESSION, 1, lambda: 0.0, 0.0)
    repairs = ((0, 0, 0),)
    receiver.accept([Sync(1, 1, Phase.SENDING, 10, 1, repairs, (), ((1, 1),), ((1, Leaving.SLOW),))], 0.0)
    receiver.tick(10.0)
    assert receiver.left == Leaving.SLOW
    assert receiver.reports == []


def test_what_the_sync_promises_is_not_asked_for() -> None:
    receiver = Receiver(SESSION, 1, lambda: 0.5, 0.0)
    receiver.accept([Run(Kind.BLOCKS, 0, 0, 4, 1, TRUTH[0][: 4 * BLOCK])], 0.0)
    rest = ((1, PARCELS - 1),)
    receiver.accept([Sync(5, 1, Phase.SENDING, 10, 1, ((0, 0, 4),), rest)], 0.0)
    receiver.tick(10.0)
    assert receiver.reports == []
    receiver.accept([Sync(6, 2, Phase.SENDING, 10, 1, ((0, 0, 3),), rest)], 11.0)
    receiver.tick(12.0)
    assert [report.needs for report in receiver.reports] == [((0, 4),)]


def test_of_receivers_without_room_one_speaks_for_all() -> None:
    receiver = Receiver(SESSION, 1, lambda: 0.5, 0.0)
    for parcel in range(WINDOW):
        receiver.accept([Run(Kind.BLOCKS, parcel, 0, 1, parcel + 1, TRUTH[parcel][:BLOCK])], 0.0)
    for sequence, room in ((10, 0), (11, 255)):
        receiver.accept([Sync(sequence, 1, Phase.SENDING, 10, 9, (), ((0, PARCELS),), room=room)], float(sequence))
        receiver.tick(sequence + 0.5)
    assert [(report.room, report.acked) for report in receiver.reports] == [(0, 11)]


def test_a_lost_report_is_said_again() -> None:
    receiver = Receiver(SESSION, 1, lambda: 0.5, 0.0)
    for sequence in range(1, 4):
        receiver.accept([Sync(sequence, sequence, Phase.SENDING, 10, 1)], sequence)
        receiver.tick(sequence + 0.5)
    assert [report.wants for report in receiver.reports] == [((0, PARCELS),)] * 3
