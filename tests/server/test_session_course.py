"""The course of a multicast session: when it begins, when it ends, and which of several has the link."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.admin.sessions import SeatState, SessionState
from cloner_core.multicast.session import Leaving, group_key, receiver_key
from cloner_core.seats import NoSeat, Seat, SeatLater, SeatLeft, SeatRequest
from cloner_server.tasks import seating
from serverbench.sessions import LINK, Sessions, agent_of, ask, begun, leave, seated


def _turns(held: Sessions, count: int) -> None:
    for _ in range(count):
        held.turn()
        time.sleep(0.01)


def test_a_session_begins_when_all_of_its_nodes_hear_and_ends_when_all_have_everything(held: Sessions) -> None:
    held.arm("n01", "n02")
    first, second = agent_of(held.scene, 1), agent_of(held.scene, 2)
    held.turn()
    assert held.senders == [], "nobody asked"
    assert isinstance(ask(first), SeatLater)
    held.until_started(1)
    assert held.state() is SessionState.GATHERING
    seat = seated(first)
    master = bytes.fromhex(held.sender.order.master.value)
    assert seat.group_key.value == group_key(master).hex()
    assert seat.own_key.value == receiver_key(master, seat.number).hex()
    assert (seat.group, seat.port, seat.sender, seat.sender_port) == ("239.255.67.1", 47000, "10.77.0.1", 40000)
    held.sender.hear()
    held.turn()
    assert held.seats() == {"n01": SeatState.HEARING, "n02": SeatState.AWAITED}
    assert ("begin",) not in held.sender.said
    assert seated(second).number == 2
    held.turn()
    assert ("begin",) not in held.sender.said, "the second is not heard yet"
    held.sender.hear(2)
    held.turn()
    assert held.sender.said.count(("begin",)) == 1
    assert held.state() is SessionState.SENDING
    held.sender.hear(1, done=1)
    assert {seat.node: seat.parcels for seat in held.show().seats}["n01"] == 1
    leave(first)
    assert held.seats()["n01"] is SeatState.WRITTEN
    assert ("settle", 1) in held.sender.said
    held.turn()
    assert held.state() is SessionState.SENDING
    leave(second, "its disk is slow", 0)
    held.turn()
    assert held.state() is SessionState.ENDED
    assert held.why("n02") == "its disk is slow"
    assert held.sender.said[-1] == ("stop",)
    assert ask(first) == NoSeat("session 1 is ended")


def test_a_session_begins_with_the_least_it_was_given(held: Sessions) -> None:
    held.arm("n01", "n02", least=1)
    agent = agent_of(held.scene, 1)
    ask(agent)
    held.until_started(1)
    seated(agent)
    held.sender.hear()
    held.turn()
    assert held.state() is SessionState.SENDING


def test_a_session_waits_no_longer_than_it_was_told(held: Sessions) -> None:
    held.arm("n01", "n02", wait_s=60)
    agent = agent_of(held.scene, 1)
    ask(agent)
    held.until_started(1)
    seated(agent)
    held.sender.hear()
    held.turn(59)
    assert held.state() is SessionState.GATHERING
    held.turn(2)
    assert held.state() is SessionState.SENDING


def test_a_session_stays_for_who_is_still_to_come_as_long_as_it_waited(held: Sessions) -> None:
    held.arm("n01", "n02", least=1, wait_s=60)
    agent = agent_of(held.scene, 1)
    ask(agent)
    held.until_started(1)
    seated(agent)
    held.sender.hear()
    held.turn()
    agent.told("seat/left", dict[str, Any], SeatLeft("", 1))
    held.turn()
    held.turn(59)
    assert held.state() is SessionState.SENDING, "n02 may still come"
    held.turn(2)
    assert held.state() is SessionState.ENDED
    assert held.seats() == {"n01": SeatState.WRITTEN, "n02": SeatState.HTTPS}
    assert held.why("n02") == "the session ended before it came"


def test_a_session_that_gathers_gives_the_link_to_one_that_can_use_it(held: Sessions) -> None:
    held.scene.add_node("n03", "52:54:00:00:00:03")
    held.arm("n01", "n02")
    held.arm("n03")
    first, third = agent_of(held.scene, 1), agent_of(held.scene, 3)
    ask(first)
    held.until_started(1)
    seated(first)
    ask(third)
    leave(first, "it hears nothing")
    held.turn()
    held.turn(seating.RETURN_S - 1)
    assert held.state() is SessionState.GATHERING, "n02 may still come"
    assert held.state("2") is SessionState.QUEUED
    held.turn(2)
    assert held.state() is SessionState.ENDED
    assert "no node that it could begin with" in held.show().why
    assert held.why("n02") == held.show().why
    assert held.senders[0].said[-1] == ("stop",)
    held.until_started(2)
    assert held.state("2") is SessionState.GATHERING


def test_a_session_that_gathers_in_vain_ends_after_the_time_it_was_to_wait(held: Sessions) -> None:
    held.arm("n01", "n02", wait_s=600)
    agent = agent_of(held.scene, 1)
    ask(agent)
    held.until_started(1)
    seated(agent)
    held.sender.hear(1, left=Leaving.SILENT)
    held.turn()
    held.turn(599)
    assert held.state() is SessionState.GATHERING, "nobody else wants the link"
    held.turn(2)
    assert held.state() is SessionState.ENDED


def test_a_session_that_has_begun_and_gets_no_sender_any_more_does_not_wait_for_ever(held: Sessions) -> None:
    held.arm("n01", "n02", least=1, wait_s=60)
    agent = agent_of(held.scene, 1)
    ask(agent)
    held.until_started(1)
    seated(agent)
    held.sender.hear()
    held.turn()
    leave(agent)
    held.is_full = True
    held.sender.die()
    _turns(held, 4)
    assert held.state() is SessionState.SENDING
    held.turn(60)
    assert held.state() is SessionState.ENDED


@pytest.mark.parametrize("wait_s", [0.0, 600.0])
def test_a_session_whose_sender_has_no_socket_yet_is_not_idle(held: Sessions, wait_s: float) -> None:
    held.arm("n01", wait_s=wait_s)
    agent = agent_of(held.scene, 1)
    held.is_full = True
    ask(agent)
    for _ in range(20):
        held.turn(100)
    held.is_full = False
    held.until_started(1)
    held.turn(seating.RETURN_S - 1)
    assert isinstance(ask(agent), Seat)
    held.sender.hear()
    held.turn()
    assert held.state() is SessionState.SENDING


def test_an_admin_has_a_session_begin_now(held: Sessions) -> None:
    held.arm("n01", "n02")
    agent = agent_of(held.scene, 1)
    ask(agent)
    held.until_started(1)
    seated(agent)
    held.sender.hear()
    before = held.scene.state_dump()
    assert held.scene.admin("POST", "/multicast/sessions/1/start", dry_run=True).status_code == 200
    assert held.scene.state_dump() == before
    assert held.scene.admin("POST", "/multicast/sessions/1/start").status_code == 200
    held.turn()
    assert held.state() is SessionState.SENDING
    assert held.scene.admin("POST", "/multicast/sessions/1/start").status_code == 409


def test_an_admin_stops_a_session_and_its_nodes_go_over_https(held: Sessions) -> None:
    [first, _] = begun(held, 1, 2)
    answer = held.scene.admin("POST", "/multicast/sessions/1/stop")
    assert answer.status_code == 200
    assert held.state() is SessionState.STOPPED
    assert set(held.seats().values()) == {SeatState.HTTPS}
    said = ask(first)
    assert isinstance(said, NoSeat)
    assert "stopped by root" in said.why
    held.turn()
    assert held.sender.said[-1] == ("stop",)
    assert held.scene.admin("POST", "/multicast/sessions/1/stop").status_code == 409
    assert held.scene.admin("POST", "/multicast/sessions/9/stop").status_code == 404


def test_a_sender_is_stopped_though_the_database_takes_nothing_now(held: Sessions) -> None:
    begun(held, 1)
    held.scene.admin("POST", "/multicast/sessions/1/stop")
    held.desk.database = dataclasses.replace(held.scene.core.database, queue_s=0.01)
    with held.desk.database.writer:
        held.turn()
    assert held.sender.said[-1] == ("stop",)


def test_a_session_whose_tasks_were_aborted_ends_though_nobody_ever_came(held: Sessions) -> None:
    armed = held.arm("n01", "n02")
    for one in armed.intents:
        held.scene.admin("POST", f"/tasks/{one.task_id}/abort")
    held.turn()
    assert held.state() is SessionState.ENDED
    assert "before" in held.show().why
    assert held.scene.netboot("n01") == "local"
    assert held.scene.admin("GET", "/multicast/sessions").json() == []
    assert len(held.scene.admin("GET", "/multicast/sessions", all=True).json()) == 1


def test_a_task_that_is_done_and_never_said_how_settles_its_seat(held: Sessions) -> None:
    [agent] = begun(held, 1)
    agent.deploy()
    held.turn()
    assert held.seats()["n01"] is SeatState.HTTPS
    assert held.state() is SessionState.ENDED


_STATES = st.lists(st.sampled_from(SeatState), max_size=6)


@dataclasses.dataclass
class _Row:
    state: str = "gathering"
    is_start_now: bool = False
    least: int = 0
    wait_s: float = 600.0
    gathered_s: float | None = 0.0


_ROWS = st.builds(
    _Row,
    st.sampled_from(["gathering", "sending"]),
    st.booleans(),
    st.integers(0, 6),
    st.floats(0, 1000),
    st.none() | st.floats(0, 1000),
)


@given(_ROWS, _STATES, st.floats(0, 2000), st.floats(0, 2000), st.booleans())
def test_nothing_is_sent_to_nobody_and_nobody_is_waited_for_in_vain(
    row: Any, seats: list[SeatState], now_s: float, idle_s: float, is_link_wanted: bool
) -> None:
    may_begin = seating.should_begin(row, seats, now_s)
    may_end = seating.should_end(row, seats, idle_s, is_link_wanted=is_link_wanted)
    assert not (may_begin and may_end)
    if may_begin:
        assert SeatState.HEARING in seats
    if SeatState.HEARING in seats and not {SeatState.AWAITED, SeatState.SEATED} & set(seats):
        assert may_begin
    if not set(seats) & {SeatState.AWAITED, SeatState.SEATED, SeatState.HEARING}:
        assert may_end
    if not set(seats) & {SeatState.SEATED, SeatState.HEARING} and SeatState.AWAITED in seats:
        is_time = is_link_wanted or idle_s >= row.wait_s
        assert may_end == (is_time and (row.state == "sending" or idle_s >= seating.RETURN_S))


@dataclasses.dataclass
class _Queued:
    rate_bps: float
    pack_map: str


@given(
    st.lists(st.builds(_Queued, st.floats(1e6, 1e10), st.sampled_from(["", "ab"])), max_size=8),
    st.floats(0, 1e9),
    st.floats(1e6, 1e9),
)
def test_sessions_share_the_link_and_none_passes_one_that_waits(
    queued: Any, used_bps: float, budget_bps: float
) -> None:
    found = seating.startable(queued, used_bps, budget_bps)
    asked = [row for row in queued if row.pack_map]
    assert found == asked[: len(found)]
    total_bps = used_bps + sum(row.rate_bps for row in found)
    assert len(found) <= 1 or total_bps <= budget_bps
    if asked and not used_bps:
        assert found, "an empty link takes the first, whatever it wants"
    if used_bps and found:
        assert total_bps <= budget_bps


def test_two_sessions_share_the_link_and_a_third_waits_for_it(held: Sessions) -> None:
    scene = held.scene
    scene.add_node("n03", "52:54:00:00:00:03")
    for number, rate in ((1, 4e8), (2, 3e8), (3, 1e8)):
        held.arm(f"n0{number}", rate_bps=rate)
    agents = [agent_of(scene, number) for number in (1, 2, 3)]
    for agent in agents:
        ask(agent)
    held.until_started(2)
    held.turn()
    assert [held.state(one) for one in "123"] == [SessionState.GATHERING, SessionState.GATHERING, SessionState.QUEUED]
    assert {one.order.group for one in held.senders} == {"239.255.67.1", "239.255.67.2"}
    waits = ask(agents[2])
    assert isinstance(waits, SeatLater)
    assert "taken by" in waits.text
    leave(agents[0], "no")
    held.turn()
    held.until_started(3)
    assert held.state("3") is SessionState.GATHERING


@pytest.mark.parametrize("is_sending", [True, False], ids=["sends", "gathers"])
def test_a_session_does_not_end_for_one_that_the_link_has_room_for(held: Sessions, is_sending: bool) -> None:
    held.scene.add_node("n03", "52:54:00:00:00:03")
    held.arm("n01", "n02", rate_bps=3e8, least=int(is_sending))
    held.arm("n03", rate_bps=3e8)
    first, third = agent_of(held.scene, 1), agent_of(held.scene, 3)
    ask(first)
    held.until_started(1)
    seated(first)
    held.sender.hear()
    held.turn()
    assert held.state() is (SessionState.SENDING if is_sending else SessionState.GATHERING)
    leave(first)
    held.turn()
    held.turn(seating.RETURN_S + 1)
    ask(third)
    held.until_started(2)
    assert held.state() is not SessionState.ENDED, "n02 may still come"


def test_a_session_that_cannot_be_looked_at_keeps_no_other_waiting(held: Sessions) -> None:
    begun(held, 1, rate_bps=3e8)
    held.sender.hear(1, done=1 << 63, left=Leaving.SLOW)  # more than a column of the database holds
    held.arm("n02", rate_bps=3e8)
    ask(agent_of(held.scene, 2))
    held.until_started(2)
    assert held.state("2") is SessionState.GATHERING
    held.senders[0].hear(1, done=1, left=Leaving.SLOW)
    held.turn()
    assert held.state() is SessionState.ENDED


def test_the_higher_priority_comes_first(held: Sessions) -> None:
    held.arm("n01", priority=0)
    held.arm("n02", priority=5)
    first, second = agent_of(held.scene, 1), agent_of(held.scene, 2)
    ask(first)
    ask(second)
    held.until_started(1)
    assert held.sender.order.session == "2"
    assert held.state("1") is SessionState.QUEUED


def test_nodes_and_admins_are_told_that_the_interface_is_gone(held: Sessions, caplog: pytest.LogCaptureFixture) -> None:
    gone = "there is no network interface 'eth0'"
    held.arm("n01", rate_bps=3e8)
    held.arm("n02", rate_bps=3e8)
    agents = [agent_of(held.scene, number) for number in (1, 2)]
    held.is_full = True  # the first has the link, and no sender yet
    ask(agents[0])
    _turns(held, 20)
    assert held.show().why == "64 senders run already"
    held.link, held.is_full = None, False
    ask(agents[1])
    _turns(held, 20)
    for number, agent in ((1, agents[0]), (2, agents[1])):
        assert ask(agent) == SeatLater(f"session {number} waits: {gone}", 2.0)
        assert held.show(str(number)).why == gone
    said = [record.getMessage() for record in caplog.records]
    assert [said.count(f"{what} waits: {gone}") for what in ("session 1", "the server's wire")] == [1, 1]
    held.link = LINK
    held.until_started(2)
    assert [held.show(session).why for session in "12"] == ["", ""]


def test_a_rate_above_the_share_is_said_and_has_the_link_alone(held: Sessions) -> None:
    assert "alone" in held.arm("n01", rate_bps=9e8, dry_run=True).notes[0]
    held.link = dataclasses.replace(LINK, notes=("the kernel does not tell how fast eth0 is",))
    assert "does not tell" in held.arm("n01", dry_run=True).notes[0]


def test_a_version_that_cannot_be_read_fails_its_session_and_says_so(held: Sessions) -> None:
    held.arm("n01")
    agent = agent_of(held.scene, 1)
    store = held.scene.core.catalog.store
    for path in store.paths_of("golden", 1):
        if "pack" in str(path.parent) and path.is_file() and path.stat().st_size > 500:
            data = bytearray(path.read_bytes())
            data[-1] ^= 1
            path.chmod(0o600)
            path.write_bytes(data)
    ask(agent)
    for _ in range(100):
        held.turn(0.1)
        if held.state() is SessionState.FAILED:
            break
        time.sleep(0.02)
    assert held.state() is SessionState.FAILED
    assert "cannot be read" in held.show().why
    answer: httpx.Response = agent.post("seat", SeatRequest((1,)))
    assert b"cannot be read" in answer.content
