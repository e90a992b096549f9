"""Multicast sessions: what is refused, who gets a seat, when one begins and ends, and what a restart leaves of it."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.admin.sessions import SeatState, SessionState
from cloner_core.messages import Cause, Failure, Stage
from cloner_core.multicast.session import Leaving, group_key, receiver_key
from cloner_core.seats import NoSeat, ParcelList, Seat, SeatLater, SeatLeft, SeatRequest
from cloner_server.sessiondesk import DEATHS_MOST
from cloner_server.state import events, nodes, waiting
from cloner_server.tasks import seating
from serverbench.scene import Agent, Scene
from serverbench.sessions import LINK, Sessions, agent_of, ask, leave

FAILURE = Failure(Stage.PLAN, Cause.TOOL, "no disk", "", is_destroyed=False)


@pytest.fixture
def held(scene: Scene) -> Sessions:
    for number in (1, 2):
        scene.add_node(f"n0{number}", f"52:54:00:00:00:0{number}")
    return Sessions(scene)


def told(scene: Scene, what: str) -> list[dict[str, Any]]:
    with scene.core.database.read() as connection:
        return [one.detail for one in events.list_events(connection, limit=10_000) if one.what == what]


def seated(agent: Agent, stream: int = 0) -> Seat:
    seat = ask(agent, stream)
    assert isinstance(seat, Seat), seat
    return seat


def begun(held: Sessions, *numbers: int, **changes: Any) -> list[Agent]:
    """Have a session send to these nodes."""
    held.arm(*(f"n0{number}" for number in numbers), **changes)
    agents = [agent_of(held.scene, number) for number in numbers]
    assert isinstance(ask(agents[0]), SeatLater)
    held.until_started(len(held.senders) + 1)
    for agent in agents:
        seated(agent)
    held.sender.hear()
    held.turn()
    assert ("begin",) in held.sender.said
    return agents


# Arming


def test_a_session_arms_a_deploy_on_each_node_and_says_what_it_will_send(held: Sessions) -> None:
    trial = held.arm("n01", "n02", dry_run=True)
    assert trial.id == ""
    assert held.scene.admin("GET", "/tasks").json() == []
    armed = held.arm("n01", "n02", shown=trial.intents)
    assert [one.node for one in armed.intents] == ["n01", "n02"]
    assert armed.rate_bps == 7e8
    assert (armed.group, armed.port) == ("239.255.67.1", 47000)
    assert held.scene.netboot("n01") == held.scene.netboot("n02") == "cloner-multicast"
    assert held.state() is SessionState.QUEUED
    assert set(held.seats().values()) == {SeatState.AWAITED}
    assert agent_of(held.scene, 1).reply.task.session == "1"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"image": "nosuch", "override_image": True}, 404, "no such image"),
        ({"version": 9}, 404, "9"),
        ({"nodes": ("n01", "n77")}, 404, "n77"),
        ({"nodes": ("n01", "n02", "n01")}, 409, "named twice: n01"),
        ({"nodes": ()}, 400, "no node"),
        ({"rate_bps": 2e9}, 409, "above the 1 Gbit/s of eth0"),
        ({"rate_bps": -1.0}, 400, "rate_bps"),
        ({"least": 3}, 400, "least"),
        ({"hops": 0}, 400, "hops"),
        ({"wait_s": -1.0}, 400, "wait_s"),
        ({"image": ""}, 400, "name"),
        ({"layout": "nosuch"}, 404, "nosuch"),
        ({"limit": 1}, 409, "at most 1"),
    ],
    ids=lambda value: str(value)[:24] if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_refused_and_nothing_is_half_begun(
    held: Sessions, changes: dict[str, Any], status: int, said: str
) -> None:
    before = held.scene.state_dump()
    answer = held.request("n01", "n02", **changes)
    assert answer.status_code == status, answer.text
    assert said in answer.text
    assert held.scene.state_dump() == before


def test_every_objection_is_said_at_once(held: Sessions) -> None:
    with held.scene.core.database.write() as connection:
        nodes.remember_relay(connection, held.scene.core.act("test"), "n02", "10.78.0.1")
    before = held.scene.state_dump()
    answer = held.request("n01", "n01", "n02", rate_bps=5e9)
    assert answer.status_code == 409
    for said in ("named twice: n01", "10.78.0.1", "5 Gbit/s"):
        assert said in answer.text
    assert held.scene.state_dump() == before


def test_a_node_of_another_image_needs_a_word_for_it(held: Sessions) -> None:
    with held.scene.core.database.write() as connection:
        connection.exec_driver_sql("UPDATE nodes SET image = 'other' WHERE name = 'n02'")
    answer = held.request("n01", "n02")
    assert answer.status_code == 409
    assert "n02 is of the image other, not golden" in answer.text
    assert "--override-image" in answer.text
    held.arm("n01", "n02", override_image=True)


def test_a_node_beyond_a_router_needs_hops(held: Sessions) -> None:
    with held.scene.core.database.write() as connection:
        waiting.add(connection, "n02", "local")
        waiting.change(connection, "n02", address="10.99.0.7")
    answer = held.request("n01", "n02")
    assert answer.status_code == 409
    assert "10.99.0.7, which is not in 10.77.0.0/24 of eth0" in answer.text
    held.arm("n01", "n02", hops=2)


def test_a_node_is_in_one_session_at_a_time(held: Sessions) -> None:
    held.arm("n01")
    before = held.scene.state_dump()
    answer = held.request("n01", "n02")
    assert answer.status_code == 409
    assert "n01 is in session 1, which is queued" in answer.text
    assert held.scene.state_dump() == before
    assert held.scene.admin("POST", "/netboot", {"nodes": ("n01",), "value": "cloner-multicast"}).status_code == 409


def test_an_image_is_not_removed_while_a_session_of_it_is_queued(held: Sessions) -> None:
    armed = held.arm("n01")
    with held.scene.core.database.write() as connection:
        connection.exec_driver_sql("UPDATE nodes SET image = 'other'")
    answer = held.scene.admin("DELETE", "/images/golden/versions/1")
    assert answer.status_code == 409
    assert "multicast session 1, which is queued" in answer.text
    held.scene.admin("POST", f"/tasks/{armed.intents[0].task_id}/abort")
    assert "multicast session 1" in held.scene.admin("DELETE", "/images/golden/versions/1").text
    held.turn()
    assert held.state() is SessionState.ENDED
    assert held.scene.admin("DELETE", "/images/golden/versions/1").status_code == 200


def test_what_was_shown_is_what_is_armed(held: Sessions) -> None:
    shown = held.arm("n01", dry_run=True).intents
    assert held.request("n01", "n02", shown=shown).status_code == 409
    assert held.scene.admin("GET", "/tasks").json() == []


def test_without_a_link_no_session_can_be(held: Sessions) -> None:
    held.scene.core = dataclasses.replace(held.scene.core, sessions=None)
    assert "--interface" in held.request("n01").text
    rules = dataclasses.replace(held.scene.core.rules, has_agent=False)
    held.scene.core = dataclasses.replace(held.scene.core, sessions=held.desk, rules=rules)
    assert "offers no agent" in held.request("n01").text


def test_the_node_that_waits_is_called_by_its_session(held: Sessions) -> None:
    called: list[str] = []
    armed = threading.Event()

    async def listen() -> None:
        with held.scene.core.calls.listening("n01") as event:
            armed.set()
            await event.wait()
            called.append("n01")

    import asyncio

    thread = threading.Thread(target=lambda: asyncio.run(asyncio.wait_for(listen(), 20)))
    thread.start()
    assert armed.wait(10)
    held.arm("n01")
    thread.join(20)
    assert called == ["n01"]


# Seats


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


def test_no_key_of_an_epoch_is_kept(held: Sessions) -> None:
    begun(held, 1)
    dump = str(held.scene.state_dump())
    master = bytes.fromhex(held.sender.order.master.value)
    for secret in (master.hex(), group_key(master).hex(), receiver_key(master, 1).hex()):
        assert secret not in dump


def test_the_parcels_are_those_of_the_tasks_version(held: Sessions) -> None:
    [agent] = begun(held, 1)
    digest = agent.reply.task.version.digest  # type: ignore[union-attr]
    listed = msgspec.json.decode(agent.get(f"/versions/{digest}/parcels").content, type=ParcelList)
    assert listed == held.sender.order.parcels
    assert held.show().parcels == len(listed.digests)
    assert held.show().data_bytes == sum(listed.sizes)
    assert agent.get(f"/versions/{'00' * 32}/parcels").status_code == 404
    assert held.scene.agents.get(f"/agent/v1/versions/{digest}/parcels").status_code == 401


def test_a_seat_needs_the_proof_of_its_attempt(held: Sessions) -> None:
    held.arm("n01")
    agent = agent_of(held.scene, 1)
    assert agent.post("seat", SeatRequest((1,)), **{"Cloner-Proof": "00" * 64}).status_code == 401


def test_a_node_that_speaks_no_version_we_do_goes_over_https(held: Sessions) -> None:
    held.arm("n01")
    agent = agent_of(held.scene, 1)
    answer = agent.post("seat", SeatRequest((77,)))
    assert b"77" in answer.content
    assert held.seats()["n01"] is SeatState.HTTPS


def test_a_node_that_hears_nothing_goes_over_https_with_the_reason(held: Sessions) -> None:
    held.arm("n01", "n02")
    agent, other = agent_of(held.scene, 1), agent_of(held.scene, 2)
    ask(agent)
    held.until_started(1)
    seat = seated(agent)
    seated(other)
    held.turn(seating.HEAR_S - 2)
    assert seated(agent, seat.stream).number == seat.number, "it is the same seat"
    held.turn(2.1)
    said = ask(agent, seat.stream)
    assert isinstance(said, NoSeat)
    assert "239.255.67.1:47000" in said.why
    assert "IGMP snooping" in said.why
    assert held.why("n01") == said.why
    assert ("settle", seat.number) in held.sender.said


def test_a_node_that_is_not_heard_goes_over_https_with_the_reason(held: Sessions) -> None:
    held.arm("n01", "n02")
    agent, other = agent_of(held.scene, 1), agent_of(held.scene, 2)
    ask(agent)
    held.until_started(1)
    seat = seated(agent)
    seated(other)
    held.sender.hear(2)
    held.turn(seating.HEAR_S + 1.5)
    assert held.seats()["n01"] is SeatState.SEATED, "it may say itself that it hears nothing"
    held.turn(4)
    assert held.seats() == {"n01": SeatState.HTTPS, "n02": SeatState.HEARING}
    assert "answers do not arrive" in held.why("n01")
    assert ("dismiss", seat.number, Leaving.SILENT) in held.sender.said
    assert held.state() is SessionState.SENDING, "the other is not kept waiting"
    agent.told("seat/left", dict[str, Any], SeatLeft("silent", 0, heard=False))
    assert "IGMP snooping" in held.why("n01"), "it did not hear, and says so"


@pytest.mark.parametrize("reason", list(Leaving))
def test_whom_the_sender_gave_up_goes_over_https_with_the_reason(held: Sessions, reason: Leaving) -> None:
    begun(held, 1, 2)
    held.sender.hear(1, done=1, loss=0.25, left=reason)
    held.turn()
    assert held.seats()["n01"] is SeatState.HTTPS
    assert held.why("n01").startswith(("slow", "loss", "greedy", "silent", "the session"))
    [seat] = [seat for seat in held.show().seats if seat.node == "n01"]
    assert (seat.parcels, seat.loss) == (1, 0.25)


def test_a_machine_that_was_restarted_takes_another_seat(held: Sessions) -> None:
    begun(held, 1, 2)
    held.scene.clock.now_s += 100
    held.sender.hear(1, left=Leaving.SILENT)
    held.turn()
    assert held.seats()["n01"] is SeatState.HTTPS
    again = agent_of(held.scene, 1)
    seat = seated(again)
    assert seat.number == 3
    assert held.seats()["n01"] is SeatState.SEATED


def test_the_old_attempt_of_a_restarted_machine_cannot_give_up_its_new_seat(held: Sessions) -> None:
    [old, _] = begun(held, 1, 2)
    held.scene.clock.now_s += 100
    seated(agent_of(held.scene, 1))
    assert old.post("seat/left", {"why": "late", "parcels": 0}).status_code == 401
    assert held.seats()["n01"] is SeatState.SEATED


def test_a_node_whose_packs_are_another_maps_goes_over_https(held: Sessions) -> None:
    begun(held, 1)
    with held.scene.core.database.write() as connection:
        connection.exec_driver_sql(f"UPDATE sessions SET pack_map = '{'ab' * 32}'")
    held.scene.clock.now_s += 100
    said = ask(agent_of(held.scene, 1))
    assert isinstance(said, NoSeat)
    assert "arranged anew" in said.why


def test_a_task_that_failed_is_not_waited_for(held: Sessions) -> None:
    held.arm("n01", "n02")
    first, second = agent_of(held.scene, 1), agent_of(held.scene, 2)
    ask(first)
    held.until_started(1)
    seated(first)
    held.sender.hear()
    held.turn()
    second.fail(FAILURE)
    held.turn()
    assert held.seats()["n02"] is SeatState.OUT
    assert "no disk" in held.why("n02")
    assert held.state() is SessionState.SENDING


def test_a_node_that_restored_without_a_seat_is_not_waited_for(held: Sessions) -> None:
    held.arm("n01", "n02")
    first, second = agent_of(held.scene, 1), agent_of(held.scene, 2)
    ask(first)
    held.until_started(1)
    seated(first)
    held.sender.hear()
    second.beat(Stage.RESTORE)
    held.turn()
    assert held.seats()["n02"] is SeatState.AWAITED
    second.beat(Stage.READBACK)
    held.turn()
    assert held.seats()["n02"] is SeatState.HTTPS
    assert "without a seat" in held.why("n02")
    assert held.state() is SessionState.SENDING


def test_a_task_that_is_begun_anew_joins_while_its_session_runs(held: Sessions) -> None:
    armed = held.arm("n01", "n02")
    first, second = agent_of(held.scene, 1), agent_of(held.scene, 2)
    ask(second)
    held.until_started(1)
    first.fail(FAILURE)
    held.turn()
    assert held.seats()["n01"] is SeatState.OUT
    assert held.scene.admin("POST", f"/tasks/{armed.intents[0].task_id}/retry").status_code == 200
    assert held.seats()["n01"] is SeatState.AWAITED
    assert held.scene.netboot("n01") == "cloner-multicast"
    assert isinstance(ask(agent_of(held.scene, 1)), Seat)


def test_a_task_that_is_begun_anew_after_its_session_goes_over_https(held: Sessions) -> None:
    armed = held.arm("n01")
    agent_of(held.scene, 1).fail(FAILURE)
    held.turn()
    assert held.state() is SessionState.ENDED
    held.scene.admin("POST", f"/tasks/{armed.intents[0].task_id}/retry")
    assert held.scene.netboot("n01") == "cloner"
    agent = agent_of(held.scene, 1)
    assert agent.reply.task.session == ""  # type: ignore[union-attr]


# Beginning and ending


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
    if not set(seats) & {SeatState.SEATED, SeatState.HEARING} and row.state == "sending":
        assert may_end == (SeatState.AWAITED not in seats or is_link_wanted or idle_s >= row.wait_s)


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


def test_the_higher_priority_comes_first(held: Sessions) -> None:
    held.arm("n01", priority=0)
    held.arm("n02", priority=5)
    first, second = agent_of(held.scene, 1), agent_of(held.scene, 2)
    ask(first)
    ask(second)
    held.until_started(1)
    assert held.sender.order.session == "2"
    assert held.state("1") is SessionState.QUEUED


def test_a_rate_above_the_share_is_said_and_has_the_link_alone(held: Sessions) -> None:
    assert "alone" in held.arm("n01", rate_bps=9e8, dry_run=True).notes[0]
    held.link = dataclasses.replace(LINK, notes=("the kernel does not tell how fast eth0 is",))
    assert "does not tell" in held.arm("n01", dry_run=True).notes[0]


# Senders that die, servers that are restarted


def test_a_sender_that_dies_is_followed_by_another_epoch(held: Sessions) -> None:
    [first, second] = begun(held, 1, 2)
    old = held.sender
    old.begun = 1
    old.die("Traceback\nMemoryError")
    held.until_started(2)
    new = held.sender.order
    assert new.stream == old.order.stream + 1
    assert new.master.value != old.order.master.value
    assert new.first_parcel == 1
    assert told(held.scene, "sender died")[0]["why"] == "MemoryError"
    assert seated(first, old.order.stream).number == 1, "numbers are the epoch's own"
    held.turn()
    assert ("begin",) not in held.sender.said, "nobody hears yet"
    held.sender.hear()
    held.turn()
    assert ("begin",) in held.sender.said
    assert held.show().epochs == 2
    held.turn(31)
    assert held.seats() == {"n01": SeatState.HEARING, "n02": SeatState.HTTPS}
    assert "did not come back" in held.why("n02")
    said = ask(second)
    assert isinstance(said, NoSeat)


def test_a_session_whose_senders_only_die_has_failed_and_its_nodes_go_over_https(held: Sessions) -> None:
    [agent] = begun(held, 1)
    for count in range(1, DEATHS_MOST + 1):
        held.until_started(count)
        held.sender.die("no such device")
        held.turn()
    assert held.state() is SessionState.FAILED
    assert "no such device" in held.show().why
    assert len(held.senders) == DEATHS_MOST
    said = ask(agent)
    assert isinstance(said, NoSeat)
    assert "no such device" in said.why


def test_a_sender_that_lasted_wipes_out_the_deaths_before_it(held: Sessions) -> None:
    begun(held, 1)
    for count in range(1, 2 * DEATHS_MOST):
        held.until_started(count)
        held.sender.hear(1)
        held.turn(61)
        if held.state() is not SessionState.SENDING:
            break
        held.sender.die()
        held.turn()
    assert held.state() is not SessionState.FAILED


def test_a_server_that_was_restarted_goes_on_with_its_sessions(held: Sessions) -> None:
    [first, _] = begun(held, 1, 2)
    old = held.sender.order
    held.sender.begun = 1
    held.turn(5)
    held.restart()
    assert isinstance(ask(first, old.stream, heard=True), SeatLater)
    held.until_started(2)
    assert held.sender.order.stream == old.stream + 1
    assert held.sender.order.master.value != old.master.value
    assert held.sender.order.first_parcel == 1, "what was sent before is sent to who wants it"
    seat = seated(first, old.stream)
    assert seat.stream == old.stream + 1
    held.sender.hear()
    held.turn()
    assert held.state() is SessionState.SENDING
    assert ("begin",) in held.sender.said


def test_a_restart_while_nodes_gather_goes_on_gathering(held: Sessions) -> None:
    held.arm("n01", "n02")
    first = agent_of(held.scene, 1)
    ask(first)
    held.until_started(1)
    old = seated(first)
    held.restart()
    held.until_started(2)
    seated(first, old.stream)
    held.sender.hear()
    held.turn()
    assert held.state() is SessionState.GATHERING
    seated(agent_of(held.scene, 2))
    held.sender.hear()
    held.turn()
    assert held.state() is SessionState.SENDING


def test_a_server_that_has_too_many_senders_tries_again(held: Sessions) -> None:
    held.arm("n01")
    agent = agent_of(held.scene, 1)
    held.is_full = True
    ask(agent)
    for _ in range(20):
        held.turn(0.1)
        time.sleep(0.02)
    assert held.senders == []
    held.is_full = False
    held.until_started(1)
    assert isinstance(ask(agent), Seat)


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


@pytest.mark.parametrize(("after_s", "said"), [(0.1, "too little memory"), (seating.HEAR_S, "IGMP snooping")])
def test_a_node_that_gives_up_says_why_and_the_server_what_to_look_for(
    held: Sessions, after_s: float, said: str
) -> None:
    held.arm("n01", "n02")
    agent = agent_of(held.scene, 1)
    ask(agent)
    held.until_started(1)
    seated(agent)
    held.scene.clock.now_s += after_s
    agent.told("seat/left", dict[str, Any], SeatLeft("too little memory", 0, heard=False))
    assert said in held.why("n01")
