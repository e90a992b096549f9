"""Multicast sessions whose senders die and whose server is restarted: another epoch goes on, with keys of its own."""

from __future__ import annotations

import dataclasses
import time

import pytest

from cloner_core.admin.sessions import SeatState, SessionState
from cloner_core.multicast.session import group_key, receiver_key
from cloner_core.seats import NoSeat, Seat, SeatLater
from cloner_server.multicast.links import Link
from cloner_server.sessiondesk import DEATHS_MOST
from serverbench.sessions import LINK, Sessions, agent_of, ask, begun, leave, seated, told


def test_no_key_of_an_epoch_is_kept(held: Sessions) -> None:
    begun(held, 1)
    dump = str(held.scene.state_dump())
    master = bytes.fromhex(held.sender.order.master.value)
    for secret in (master.hex(), group_key(master).hex(), receiver_key(master, 1).hex()):
        assert secret not in dump


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


def test_a_node_that_leaves_an_epoch_that_is_over_takes_nobodys_seat_in_the_next(held: Sessions) -> None:
    [first, second] = begun(held, 1, 2)
    old = held.sender.order.stream
    held.sender.die()
    held.until_started(2)
    assert seated(second, old).number == 1, "which was the number of the first"
    leave(first)
    assert held.seats() == {"n01": SeatState.WRITTEN, "n02": SeatState.SEATED}
    assert held.sender.said == [("admit", 1)]


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


@pytest.mark.parametrize(
    ("asked_bps", "link", "rate_bps"),
    [
        (0.0, dataclasses.replace(LINK, budget_bps=2e8), 2e8),
        (0.0, dataclasses.replace(LINK, speed_bps=1e8, budget_bps=7e7), 7e7),
        (0.0, dataclasses.replace(LINK, speed_bps=1e10, budget_bps=7e9), 7e9),
        (5e8, dataclasses.replace(LINK, budget_bps=2e8), 5e8),
        (5e8, dataclasses.replace(LINK, speed_bps=1e8, budget_bps=7e7), 1e8),
    ],
    ids=["share lowered", "slower", "faster", "asked for more than is shared", "asked for more than there is"],
)
def test_the_next_epoch_and_the_queue_have_the_rate_of_the_link_as_it_is(
    held: Sessions, asked_bps: float, link: Link, rate_bps: float
) -> None:
    [agent] = begun(held, 1, rate_bps=asked_bps)
    held.arm("n02", rate_bps=asked_bps)
    second = agent_of(held.scene, 2)
    held.link = link
    held.restart()
    ask(agent, held.sender.order.stream, heard=True)
    held.until_started(2)
    assert held.sender.order.rate_bps == rate_bps
    assert held.sender.order.floor_bps == pytest.approx(rate_bps / 20)
    assert held.show().rate_bps == rate_bps
    leave(agent)
    ask(second)
    held.until_started(3)
    assert (held.sender.order.session, held.sender.order.rate_bps) == ("2", rate_bps)
    assert held.show("2").rate_bps == rate_bps


def test_what_is_queued_is_let_on_by_the_rate_that_it_has_now(held: Sessions) -> None:
    begun(held, 1, rate_bps=3e8)
    held.arm("n02")
    agent = agent_of(held.scene, 2)
    ask(agent)
    held.turn()
    assert held.state("2") is SessionState.QUEUED
    held.link = dataclasses.replace(LINK, speed_bps=1e8, budget_bps=7e7)
    held.turn()
    assert (held.state("2"), held.show("2").rate_bps) == (SessionState.QUEUED, 7e7)
    assert held.show().rate_bps == 3e8, "its sender runs on as it was started"


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
    assert (held.show().epochs, told(held.scene, "epoch")) == (0, [])
    held.is_full = False
    held.until_started(1)
    assert isinstance(ask(agent), Seat)
