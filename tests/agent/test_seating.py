"""A seat is asked for until there is one; what a node cannot do is said, and what cannot be stops the deploy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from agentbench.server import SEAT, FakeServer
from cloner_agent.failures import AbortError, StageError
from cloner_agent.restore.arrivals import Parcels
from cloner_agent.seating import Joining, Multicast, checked_parcels, fitting_window, leave, take_seat
from cloner_core.errors import RefusedError, UnreachableError
from cloner_core.image.packmap import PackMap, PackRef
from cloner_core.messages import Cause, Fault, Secret
from cloner_core.multicast.session import VERSIONS, Session
from cloner_core.seats import NoSeat, ParcelList, Seat, SeatLater, SeatLeft, SeatRequest
from cloner_multicast.feed import Join
from cloner_multicast.sockets import Group

VERSION = "ab" * 32
PACKS = PackMap(1, bytes(32), bytes(32), tuple(PackRef(bytes([number]) * 32, 1000, 2000, 1) for number in range(3)))
LISTED = ParcelList(("01" * 32, "02" * 32, "03" * 32), (1100, 1100, 1001))


class Opened:
    """Stands for a session that was begun; nobody here looks into it."""


@dataclass
class Machine:
    slept_s: list[float] = field(default_factory=list)
    opened: list[tuple[Session, Group, Join]] = field(default_factory=list)
    free_bytes: int = 1 << 30
    fault: Exception | None = None

    def seams(self) -> Multicast:
        return Multicast(self._open, lambda address: f"nic-to-{address}", lambda: self.free_bytes, self.slept_s.append)

    def _open(self, session: Session, group: Group, join: Join) -> Parcels:
        if self.fault is not None:
            raise self.fault
        self.opened.append((session, group, join))
        return Opened()  # type: ignore[return-value]


def _server(*answers: Seat | SeatLater | NoSeat) -> FakeServer:
    server = FakeServer()
    server.listed, server.seats = LISTED, list(answers)
    return server


def _take(server: FakeServer, machine: Machine, said: list[str] | None = None) -> Parcels | str:
    return take_seat(server, VERSION, PACKS, machine.seams(), ([] if said is None else said).append)


def _seat(**changes: Any) -> Seat:
    return msgspec.structs.replace(SEAT, **changes)


def test_the_session_is_received_where_the_server_is_reached() -> None:
    machine, server = Machine(), _server(SEAT)
    assert isinstance(_take(server, machine), Opened)
    ((session, group, join),) = machine.opened
    assert (session.stream, session.block_bytes, session.window_parcels) == (7, 1440, 16)
    assert [parcel.size for parcel in session.parcels] == [1100, 1100, 1001]
    assert group == Group("239.255.67.1", 47001, "nic-to-10.0.0.1", 1)
    assert server.asked == [SeatRequest(VERSIONS)]
    seat = join(0, False)
    assert seat is not None
    assert not isinstance(seat, str)
    assert (seat.stream, seat.number, seat.group_key, seat.own_key) == (7, 2, b"\x0a" * 16, b"\x0b" * 16)
    assert seat.sender == ("10.0.0.1", 5000)
    assert len(server.asked) == 1, "the first seat is the one that was given"


def test_it_is_waited_for_and_shown_for_what() -> None:
    machine, said = Machine(), list[str]()
    server = _server(SeatLater("waiting for 3 more nodes", 1.2), SeatLater("its sender starts", 0.0), SEAT)
    assert isinstance(_take(server, machine, said), Opened)
    assert said[0] == "waiting for 3 more nodes"
    assert said[-1] == "its sender starts"
    assert sum(machine.slept_s) == pytest.approx(1.2 + 0.2)
    assert max(machine.slept_s) <= 0.5, "an order to end must be heard meanwhile"


def test_who_waits_can_be_ended() -> None:
    def tick(text: str) -> None:
        raise AbortError(text)

    with pytest.raises(AbortError):
        take_seat(_server(SeatLater("queued")), VERSION, PACKS, Machine().seams(), tick)


def test_without_a_seat_the_reason_is_the_servers() -> None:
    assert _take(_server(NoSeat("the session ended")), Machine()) == "the session ended"


def test_a_server_that_refuses_says_why() -> None:
    server = _server(SEAT)
    server.refuse["seat"] = Fault(error="this task has no session")
    assert _take(server, Machine()) == "this task has no session"
    assert server.seats_left == []


def test_without_the_list_of_parcels_the_seat_is_given_back() -> None:
    server = _server(SEAT)
    server.refuse["parcels"] = Fault(error="it cannot be read")
    found = _take(server, Machine())
    assert isinstance(found, str)
    assert "it cannot be read" in found
    assert [left.why for left in server.seats_left] == [found]


def test_a_sender_whose_address_is_of_one_link_is_heard_on_the_interface_the_node_booted_from() -> None:
    seat, machine = _seat(group="ff15::1", sender="fe80::1"), Machine()
    take_seat(_server(seat), VERSION, PACKS, machine.seams(), lambda _: None, booted_from="eth1")
    take_seat(_server(_seat(group="ff15::1", sender="fd00::1")), VERSION, PACKS, machine.seams(), lambda _: None)
    assert [group.interface for _, group, _ in machine.opened] == ["eth1", "nic-to-fd00::1"]
    server = _server(seat)
    why = _take(server, machine)
    assert isinstance(why, str)
    assert "fe80::1 is on the link this node booted from, which is not known" in why
    assert [left.why for left in server.seats_left] == [why]


def test_the_list_of_parcels_is_asked_for_when_somebody_has_made_it() -> None:
    server = _server(SeatLater("its sender starts"), SEAT)
    _take(server, Machine())
    assert server.said == ["seat", "seat", "parcels"]


@pytest.mark.parametrize(
    ("machine", "why"),
    [
        (Machine(free_bytes=30_000), "of memory are free"),
        (Machine(fault=RefusedError("there is no network interface 'x'")), "no network interface"),
        (Machine(fault=OSError(19, "No such device")), "No such device"),
    ],
    ids=["memory", "interface", "kernel"],
)
def test_a_node_that_cannot_receive_gives_its_seat_back(machine: Machine, why: str) -> None:
    server = _server(SEAT)
    found = _take(server, machine)
    assert isinstance(found, str)
    assert why in found
    assert [(left.why, left.parcels, left.heard) for left in server.seats_left] == [(found, 0, False)]


@pytest.mark.parametrize(
    "seat",
    [
        _seat(version=99),
        _seat(group="10.0.0.9"),
        _seat(port=0),
        _seat(hops=0),
        _seat(block_bytes=1),
        _seat(stream=1 << 32),
        _seat(window_parcels=3),
        _seat(group_key=Secret("0a")),
        _seat(own_key=Secret("zz" * 16)),
        _seat(group="nowhere"),
    ],
    ids=["version", "group", "port", "hops", "blocks", "stream", "window", "key", "own key", "no address"],
)
def test_a_seat_that_cannot_be_is_the_protocols_fault(seat: Seat) -> None:
    with pytest.raises(StageError) as caught:
        _take(_server(seat), Machine())
    assert caught.value.cause is Cause.PROTOCOL


@pytest.mark.parametrize(
    "listed",
    [
        ParcelList(LISTED.digests[:2], LISTED.sizes),
        ParcelList(LISTED.digests, LISTED.sizes[:2]),
        ParcelList(LISTED.digests, (1100, 1000, 1001)),
        ParcelList(("01" * 32, "x", "03" * 32), LISTED.sizes),
    ],
    ids=["a digest less", "a size less", "no longer than its pack", "no digest"],
)
def test_parcels_that_do_not_fit_the_packs_stop_the_deploy(listed: ParcelList) -> None:
    with pytest.raises(StageError) as caught:
        checked_parcels(listed, PACKS)
    assert caught.value.cause is Cause.CORRUPT


MIB = 1 << 20


@pytest.mark.parametrize(
    ("free", "window"), [(2048 * MIB, 16), (512 * MIB, 16), (400 * MIB, 12), (128 * MIB, 4), (127 * MIB, None)]
)
def test_parcels_take_a_quarter_of_the_free_memory_at_most(free: int, window: int | None) -> None:
    if window is None:
        with pytest.raises(RefusedError, match="memory"):
            fitting_window(16, 4 * MIB, free)
        return
    assert fitting_window(16, 4 * MIB, free) == window
    assert window * 2 * 4 * MIB <= free / 4


def test_where_memory_is_short_fewer_parcels_are_held() -> None:
    machine = Machine(free_bytes=5 * 4 * 2 * 1100)
    _take(_server(SEAT), machine)
    assert machine.opened[0][0].window_parcels == 5


def _joining(*answers: Seat | SeatLater | NoSeat) -> tuple[Joining, FakeServer]:
    server = _server(*answers)
    joining = Joining(server, SEAT)
    joining(0, False)
    return joining, server


def test_a_silent_epoch_is_asked_about() -> None:
    joining, server = _joining(SeatLater("its sender starts"), _seat(stream=8, number=0), NoSeat("an admin stopped it"))
    assert joining(7, True) is None
    seat = joining(7, True)
    assert seat is not None
    assert not isinstance(seat, str)
    assert (seat.stream, seat.number) == (8, 0)
    assert joining(8, False) == "an admin stopped it"
    assert server.asked == [SeatRequest(VERSIONS, 7, True), SeatRequest(VERSIONS, 7, True), SeatRequest(VERSIONS, 8)]


def test_an_epoch_elsewhere_cannot_be_followed() -> None:
    for other in (_seat(port=1), _seat(group="239.255.67.9"), _seat(block_bytes=1000), _seat(own_key=Secret("x"))):
        joining, _ = _joining(other)
        assert isinstance(joining(7, True), str)


def test_a_server_that_is_away_is_asked_again_and_one_that_refuses_is_believed() -> None:
    joining, server = _joining()
    server.is_away = True
    assert joining(7, True) is None
    server.is_away, server.refuse["seat"] = False, Fault(error="the attempt is over")
    assert joining(7, True) == "the attempt is over"


@pytest.mark.parametrize("trouble", ["away", "refusal"])
def test_a_seat_that_cannot_be_given_back_stops_nothing(trouble: str) -> None:
    server = _server()
    server.is_away = trouble == "away"
    server.refuse["seat left"] = Fault(error="no")
    leave(server, SeatLeft("why", 3))
    assert server.seats_left == []


def test_the_reason_told_is_never_longer_than_the_server_takes() -> None:
    server = _server()
    leave(server, SeatLeft("é" * 500, 3))
    msgspec.json.decode(msgspec.json.encode(server.seats_left[0]), type=SeatLeft)


def test_a_server_that_is_away_for_good_ends_the_attempt_as_anywhere_else() -> None:
    server = _server()
    server.is_away = True
    with pytest.raises(UnreachableError):
        _take(server, Machine())
