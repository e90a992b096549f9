"""Ordering a multicast session: what it arms, what is refused, and that nothing is half begun."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from ipaddress import IPv6Interface
from typing import Any

import pytest

from cloner_core.admin.sessions import SeatState, SessionState
from cloner_core.multicast.session import BLOCK6_BYTES
from cloner_server.state import nodes, waiting
from serverbench.sessions import LINK, Sessions, agent_of, begun, seated


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
    assert {task["session"] for task in held.scene.admin("GET", "/tasks").json()} == {"1"}
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


def test_a_session_of_ipv6_has_smaller_blocks_and_is_sent_from_an_address_of_ipv6(held: Sessions) -> None:
    held.groups = "ff15::c10e:0/112"
    before = held.scene.state_dump()
    refused = held.request("n01")
    assert refused.status_code == 409
    assert "eth0 has no IPv6 address" in refused.text
    assert held.scene.state_dump() == before
    held.link = dataclasses.replace(LINK, address6=IPv6Interface("fe80::1/64"))
    [agent] = begun(held, 1)
    seat, order = seated(agent), held.sender.order
    assert (seat.group, seat.block_bytes) == ("ff15::c10e:1", BLOCK6_BYTES)
    assert (order.group, order.source, order.block_bytes) == ("ff15::c10e:1", "fe80::1", BLOCK6_BYTES)
    held.groups, held.link = "239.255.67.0/24", LINK
    held.sender.die()
    held.turn()
    assert held.state() is SessionState.SENDING, "it waits for its address, whatever is configured now"
    held.link = dataclasses.replace(LINK, address6=IPv6Interface("fd00::1/64"))
    held.until_started(2)
    assert (held.sender.order.group, held.sender.order.source) == ("ff15::c10e:1", "fd00::1")


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

    thread = threading.Thread(target=lambda: asyncio.run(asyncio.wait_for(listen(), 20)))
    thread.start()
    assert armed.wait(10)
    held.arm("n01")
    thread.join(20)
    assert called == ["n01"]
