"""Seats of multicast sessions: who gets one, who loses it and why, and who is not waited for."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cloner_core.admin.sessions import SeatState, SessionState
from cloner_core.messages import Stage
from cloner_core.multicast.session import Leaving
from cloner_core.seats import NoSeat, ParcelList, Seat, SeatLeft, SeatRequest
from cloner_server.multicast.orders import SenderPhase
from cloner_server.tasks import seating
from serverbench.sessions import FAILURE, Sessions, agent_of, ask, begun, seated


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


def test_a_node_that_was_not_polled_yet_is_not_called_mute(held: Sessions) -> None:
    held.arm("n01", "n02")
    agent = agent_of(held.scene, 1)
    ask(agent)
    held.until_started(1)
    number = seated(agent).number
    held.sender.leave_unpolled(number)
    held.turn(100)
    assert held.seats()["n01"] is SeatState.SEATED
    held.sender.admit(number)
    held.sender.hear(number)
    held.turn()
    assert held.seats()["n01"] is SeatState.HEARING


def test_a_node_that_answers_and_never_finishes_goes_over_https(held: Sessions) -> None:
    """Its disk hangs, or it means harm: nobody behind it on the wire waits for ever."""
    begun(held, 1, 2)
    held.sender.phase = SenderPhase.FINISHING
    held.sender.hear(1, done=1, stuck_s=299.0)
    held.sender.hear(2, done=1, stuck_s=299.0, is_done=True)
    held.turn()
    assert held.seats() == {"n01": SeatState.HEARING, "n02": SeatState.HEARING}
    held.sender.hear(1, done=1, stuck_s=300.0)
    held.turn()
    assert held.seats() == {"n01": SeatState.HTTPS, "n02": SeatState.HEARING}
    assert "for 300 s it wrote nothing" in held.why("n01")
    assert ("dismiss", 1, Leaving.STUCK) in held.sender.said
    held.sender.hear(2, done=1, stuck_s=300.0, is_done=True)  # and never leaves its seat
    held.turn()
    assert held.seats()["n02"] is SeatState.WRITTEN
    assert held.state() is SessionState.ENDED


def test_a_node_that_never_finishes_goes_sooner_when_a_session_waits_for_the_link(held: Sessions) -> None:
    begun(held, 1)
    held.sender.phase = SenderPhase.FINISHING
    held.sender.hear(1, done=1, stuck_s=60.0)
    held.turn()
    assert held.seats()["n01"] is SeatState.HEARING
    held.arm("n02")
    other = agent_of(held.scene, 2)
    ask(other)
    held.turn()
    assert held.state() is SessionState.ENDED
    assert "another session waits" in held.why("n01")
    held.until_started(2)
    assert isinstance(seated(other), Seat)


@pytest.mark.parametrize("reason", list(Leaving))
def test_whom_the_sender_gave_up_goes_over_https_with_the_reason(held: Sessions, reason: Leaving) -> None:
    begun(held, 1, 2)
    held.sender.hear(1, done=1, loss=0.25, left=reason)
    held.turn()
    assert held.seats()["n01"] is SeatState.HTTPS
    assert held.why("n01").startswith(("slow", "loss", "greedy", "silent", "stuck", "the session"))
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


def test_a_node_that_asks_for_seats_without_end_goes_over_https(held: Sessions) -> None:
    [first, second] = begun(held, 1, 2)
    numbers = [seated(first).number for _ in range(seating.SEATS_MOST - 1)]
    said = ask(first)
    assert isinstance(said, NoSeat)
    assert f"took {seating.SEATS_MOST} seats" in said.why
    assert held.seats() == {"n01": SeatState.HTTPS, "n02": SeatState.HEARING}
    assert ("settle", numbers[-1]) in held.sender.said
    assert ask(first) == said
    assert isinstance(ask(second, held.sender.order.stream), Seat), "the others are served"
    assert len(held.sender.heard) == seating.SEATS_MOST + 1


def test_a_node_has_its_seats_anew_in_another_epoch(held: Sessions) -> None:
    [agent] = begun(held, 1)
    for _ in range(seating.SEATS_MOST - 1):
        seated(agent)
    held.sender.die()
    held.until_started(2)
    assert isinstance(ask(agent), Seat)


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
