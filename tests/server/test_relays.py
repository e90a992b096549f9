"""Relays as their head sees them: who may speak, what is told again, what never twice, what becomes of a lost one."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import Any

import msgspec
import pytest

from cloner_core.admin.relays import RelayView
from cloner_core.admin.sessions import SeatState, SessionState
from cloner_core.image.packmap import decode_map
from cloner_core.multicast.session import BLOCK6_BYTES
from cloner_core.seats import NoSeat, ParcelList, Seat, SeatLater, make_parcel
from cloner_server.multicast.orders import Admit, Begin, ReceiverNews, SenderNews, SenderPhase, Stop
from cloner_server.relay.words import EpochNews, Fetching, RelayLink
from cloner_server.relayhub import GIVEN_UP_S, LOST_S
from cloner_server.state import nodes, waiting
from serverbench.apps import one_loop
from serverbench.relays import LINK, PretendRelay
from serverbench.scene import Agent, Scene, add_version
from serverbench.sessions import Sessions, agent_of, ask, leave
from store_images import BOOTABLE, make_image, some_contents

WAIT_S = 60.0


@pytest.fixture
def held(scene: Scene) -> Sessions:
    for number in (1, 2, 3):
        scene.add_node(f"n0{number}", f"52:54:00:00:00:0{number}")
    return Sessions(scene)


@pytest.fixture
def rack(held: Sessions) -> PretendRelay:
    relay = PretendRelay(held.scene)
    relay.turn()
    return relay


def both(held: Sessions, rack: PretendRelay, seconds: float = 0.5) -> None:
    """Let time pass; the relay takes a turn, the desk looks, and the relay another."""
    held.scene.clock.now_s += seconds
    rack.turn()
    held.desk.turn()
    rack.turn()


def until_told(held: Sessions, rack: PretendRelay, epochs: int = 1) -> None:
    ends_s = time.monotonic() + WAIT_S
    while len(rack.news) < epochs:
        assert time.monotonic() < ends_s, "no epoch was told"
        both(held, rack, 0.01)
        time.sleep(0.01)


def seated(agent: Agent, stream: int = 0) -> Seat:
    seat = ask(agent, stream)
    assert isinstance(seat, Seat), seat
    return seat


def begun(held: Sessions, rack: PretendRelay, *numbers: int) -> list[Agent]:
    """Have a session send to these nodes on the relay's wire."""
    held.arm(*(f"n0{number}" for number in numbers), relay=rack.name)
    agents = [agent_of(held.scene, number) for number in numbers]
    assert isinstance(ask(agents[0]), SeatLater)
    until_told(held, rack)
    rack.turn()
    for agent in agents:
        seated(agent)
    rack.turn()
    rack.hear(*range(1, len(numbers) + 1))
    both(held, rack)
    return agents


# Who may speak


def test_a_token_of_a_relay_opens_its_own_door_and_no_other(held: Sessions, rack: PretendRelay) -> None:
    scene = held.scene
    capture = scene.admin("POST", "/tokens", {"image": "golden"}).json()["token"]
    other = PretendRelay(scene, "rack4").token
    turn = msgspec.json.encode(rack.said())
    for token, said in ((capture, "captures of the image 'golden'"), (other, "the relay 'rack4', not for")):
        answer = rack.ask("POST", "turn", token, content=turn)
        assert (answer.status_code, said in answer.text) == (409, True)
    for token in ("", "nonsense"):
        assert rack.ask("POST", "turn", token, content=turn).status_code == 401
    headers = {"authorization": f"Bearer {rack.token}"}
    for method, path in (("GET", "/images/golden"), ("PUT", f"/packs/{'0' * 64}"), ("GET", "/token")):
        answer = scene.agents.request(method, f"/v1{path}", headers=headers, content=b"x" if method == "PUT" else None)
        assert (answer.status_code, "captures nothing" in answer.text) == (409, True), path


def test_a_token_of_a_relay_ends_and_is_withdrawn(held: Sessions, rack: PretendRelay) -> None:
    scene = held.scene
    (view,) = scene.admin("GET", "/tokens").json()
    assert (view["relay"], view["image"]) == ("rack3", "")
    short = scene.admin("POST", "/tokens", {"relay": "rack3", "lifetime_s": 60.0}).json()["token"]
    scene.clock.now_s += 61
    assert rack.ask("POST", "turn", short, content=msgspec.json.encode(rack.said())).status_code == 401
    assert scene.admin("DELETE", f"/tokens/{view['id']}").status_code == 200
    assert rack.post(rack.said()).status_code == 401


@pytest.mark.parametrize(
    "fields",
    [
        {"relay": "rack3", "image": "golden"},
        {"relay": "rack3", "layouts": ["simple"]},
        {"relay": "rack 3"},
        {"relay": "../x"},
        {},
    ],
)
def test_a_token_that_cannot_be(scene: Scene, fields: dict[str, Any]) -> None:
    assert scene.admin("POST", "/tokens", fields).status_code == 400
    assert scene.admin("GET", "/tokens").json() == []


@pytest.mark.parametrize(
    "changes",
    [
        {"protocol": 99},
        {"link": RelayLink("eth1", "nonsense", 1e9, 1e9)},
        {"link": RelayLink("eth1", "10.0.0.1/24", 1e9, 1e9, address6="10.0.0.1/24")},
        {"link": RelayLink("eth1\x1b[31m", "10.0.0.1/24", 1e9, 1e9)},
        {"link": RelayLink("eth1", "10.0.0.1/24", -1.0, 1e9)},
        {"number": 1 << 63},
        {"cache_used_bytes": -1},
        {"cache_limit_bytes": 1 << 63},
        {"fetching": (Fetching("00" * 32, 1 << 63, 5, False),)},
        {"epochs": (EpochNews(1, SenderNews(), 1 << 63),)},
        {"epochs": (EpochNews(1, SenderNews(begun=1 << 63), 0),)},
        {"epochs": (EpochNews(1, SenderNews(rate_bps=-1.0), 0),)},
        {"epochs": (EpochNews(1, SenderNews(receivers=(ReceiverNews(1, 0.1, done=1 << 63),)), 0),)},
        {"epochs": (EpochNews(1, SenderNews(receivers=(ReceiverNews(1, 0.1, loss=1e300),)), 0),)},
    ],
)
def test_a_turn_that_cannot_be_is_refused(held: Sessions, rack: PretendRelay, changes: dict[str, Any]) -> None:
    assert rack.post(rack.said(**changes)).status_code == 400
    assert rack.ask("POST", "turn", content=b"{}").status_code == 400
    assert [one.interface for one in views(held)] == ["eth1"]


def views(held: Sessions) -> list[RelayView]:
    answer = held.scene.admin("GET", "/relays")
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content, type=list[RelayView])


def test_relays_are_listed_with_what_they_told_last(held: Sessions, rack: PretendRelay) -> None:
    PretendRelay(held.scene, "rack9")
    held.arm("n01", relay="rack3")
    [here, never] = views(held)
    assert (here.name, here.is_present, here.interface, here.network) == ("rack3", True, "eth1", "10.88.0.1/24")
    assert (here.heard_s, here.sessions, here.budget_bps) == (held.scene.clock.now_s, ("1",), 7e8)
    assert (never.name, never.is_present, never.heard_s) == ("rack9", False, None)
    held.scene.clock.now_s += 15
    assert not views(held)[0].is_present


# Arming


def test_a_relay_that_is_not_there_is_a_clear_refusal(held: Sessions) -> None:
    before = held.scene.state_dump()
    answer = held.request("n01", relay="rack3")
    assert answer.status_code == 409
    assert "relay rack3 has not been heard of since the server was started" in answer.text
    relay = PretendRelay(held.scene)
    relay.link = None
    answer = relay.post(relay.said(fault="the interface eth7 is not there"))
    assert "eth7 is not there" in held.request("n01", relay="rack3").text
    relay.link = PretendRelay.link
    relay.turn()
    held.scene.clock.now_s += 11
    answer = held.request("n01", relay="rack3")
    assert "relay rack3 has not been heard of for 11 s" in answer.text
    assert held.scene.admin("GET", "/tasks").json() == []
    assert len(before) + 2 == len(held.scene.state_dump()), "a token and its event, and no session"


def test_rate_and_reach_are_those_of_the_relays_wire(held: Sessions, rack: PretendRelay) -> None:
    with held.scene.core.database.write() as connection:
        nodes.remember_relay(connection, held.scene.core.act("test"), "n01", "10.88.0.254")
        waiting.add(connection, "n02", "local")
        waiting.change(connection, "n02", address="10.88.0.7")
        waiting.add(connection, "n03", "local")
        waiting.change(connection, "n03", address="10.77.0.9")
    assert "10.88.0.254" in held.request("n01").text, "on our own wire it is beyond a router"
    answer = held.request("n01", "n02", "n03", relay="rack3", rate_bps=2e9)
    assert answer.status_code == 409
    assert "above the 1 Gbit/s of eth1 of relay rack3" in answer.text
    assert "10.77.0.9, which is not in 10.88.0.0/24 of eth1 of relay rack3" in answer.text
    assert "n01" not in answer.text.replace("n01, n02", "")
    armed = held.arm("n01", "n02", relay="rack3")
    assert armed.rate_bps == 7e8
    assert (held.show().relay, held.show().interface) == ("rack3", "eth1")


# Fetching


def test_a_relay_is_told_what_to_fetch_as_soon_as_a_session_is_armed(held: Sessions, rack: PretendRelay) -> None:
    assert rack.turn().wanted == ()
    held.arm("n01", relay="rack3")
    [wanted] = rack.turn().wanted
    assert wanted.image == "golden:1"
    agent = agent_of(held.scene, 1)
    rack.has = (3, 5)
    rack.turn()
    ask(agent)
    for _ in range(50):
        both(held, rack, 0.01)
        time.sleep(0.01)
    assert rack.news == {}, "it is not sent before all of it is there"
    later = ask(agent)
    assert isinstance(later, SeatLater)
    assert later.text == "session 1: relay rack3 has 3 of 5 packs"
    assert held.show().fetching == "relay rack3 has 3 of 5 packs"
    rack.has = (5, 5)
    until_told(held, rack)
    assert held.show().fetching == ""


def test_what_a_relay_gets_is_of_its_live_sessions_alone(held: Sessions, rack: PretendRelay) -> None:
    store = held.scene.core.catalog.store
    version = bytes.fromhex(store.version("golden").version)
    name = store.signed_map(version).map
    assert rack.ask("GET", f"maps/{name}").status_code == 404
    armed = held.arm("n01", relay="rack3")
    held.scene.clock.now_s += 2
    encoded = rack.ask("GET", f"maps/{name}").content
    assert encoded == store.pack_map(bytes.fromhex(name))
    listed = msgspec.json.decode(rack.ask("GET", f"maps/{name}/parcels").content, type=ParcelList)
    for ordinal, pack in enumerate(decode_map(encoded).packs):
        placement = rack.ask("GET", f"maps/{name}/placements/{ordinal}").content
        parcel = rack.ask("GET", f"maps/{name}/parcels/{ordinal}").content
        assert parcel == make_parcel(placement, store.pack_path(pack.digest).read_bytes())
        assert len(parcel) == listed.sizes[ordinal]
    assert rack.ask("GET", f"maps/{name}/parcels/{len(listed.sizes)}").status_code == 404
    assert rack.ask("GET", f"maps/{'ab' * 32}").status_code == 404
    other = PretendRelay(held.scene, "rack4")
    other.turn()
    assert other.ask("GET", f"maps/{name}").status_code == 404
    held.scene.admin("POST", f"/multicast/sessions/{armed.id}/stop")
    held.scene.clock.now_s += 2
    assert rack.ask("GET", f"maps/{name}/parcels/0").status_code == 404


def test_what_a_relay_cannot_have_fails_the_session_with_the_reason(held: Sessions, rack: PretendRelay) -> None:
    held.arm("n01", relay="rack3")
    rack.fault = "golden:1 wants 30.0 GiB more, and the cache has 2.0 GiB free"
    agent = agent_of(held.scene, 1)
    ask(agent)
    for _ in range(200):
        both(held, rack, 0.05)
        if held.state() is SessionState.FAILED:
            break
        time.sleep(0.01)
    assert held.state() is SessionState.FAILED
    said = ask(agent)
    assert isinstance(said, NoSeat)
    assert "relay rack3: golden:1 wants 30.0 GiB more, and the cache has 2.0 GiB free" in said.why


def test_what_a_relay_could_not_have_before_a_session_got_the_link_fails_nothing(
    held: Sessions, rack: PretendRelay
) -> None:
    held.arm("n01", relay="rack3")
    rack.fault = "golden:1 wants 30.0 GiB more, and the cache has 2.0 GiB free"
    agent = agent_of(held.scene, 1)
    ask(agent)
    for _ in range(50):
        both(held, rack, 0.05)
        time.sleep(0.01)
    later = ask(agent)
    assert isinstance(later, SeatLater)
    assert "wants 30.0 GiB more" in later.text, "nodes are told of it at once"
    rack.fault = ""
    until_told(held, rack)
    assert held.state() is SessionState.GATHERING


def test_a_session_whose_packs_are_not_there_yet_has_no_part_of_the_relays_wire(
    held: Sessions, rack: PretendRelay
) -> None:
    add_version(held.scene.core, make_image(some_contents(seed=2) | BOOTABLE))
    rack.lacks = ("golden:2",)
    held.arm("n01", relay="rack3", version=2)
    held.arm("n02", relay="rack3", version=1)
    first, second = agent_of(held.scene, 1), agent_of(held.scene, 2)
    rack.turn()
    rack.turn()
    ask(first)
    ask(second)
    until_told(held, rack)
    assert [held.state(one) for one in "12"] == [SessionState.QUEUED, SessionState.GATHERING]
    rack.turn()
    seated(second)
    later = ask(first)
    assert isinstance(later, SeatLater)
    assert later.text == "session 1: relay rack3 has 0 of 5 packs"
    rack.lacks = ()
    for _ in range(5):
        both(held, rack)
    assert held.state() is SessionState.QUEUED, "now it waits for the link"
    leave(second)
    until_told(held, rack, 2)
    assert held.state() is SessionState.GATHERING


# Epochs


def test_a_session_runs_on_a_relay_as_on_our_own_wire(held: Sessions, rack: PretendRelay) -> None:
    [first, second] = begun(held, rack, 1, 2)
    [stream] = rack.news
    assert [command for _, command in rack.obeyed] == [Admit(1), Admit(2), Begin()]
    assert held.state() is SessionState.SENDING
    assert held.senders == [], "nothing runs here"
    seat = seated(first, stream)
    assert (seat.sender, seat.sender_port) == ("10.88.0.1", 41000)
    leave(first)
    leave(second)
    both(held, rack)
    assert held.state() is SessionState.ENDED
    assert rack.obeyed[-1] == (stream, Stop())
    rack.change(phase=SenderPhase.OVER)
    rack.turn()
    assert rack.turn().epochs == ()


def test_a_session_of_ipv6_wants_an_address_of_ipv6_on_the_relays_wire(held: Sessions, rack: PretendRelay) -> None:
    held.hub.groups = "ff15::c10e:0/112"
    assert "eth1 has no IPv6 address" in held.request("n01", relay="rack3").text
    rack.link = msgspec.structs.replace(LINK, address6="fd88::1/64")
    rack.turn()
    [agent] = begun(held, rack, 1)
    [stream] = rack.news
    seat = seated(agent, stream)
    assert (seat.group, seat.block_bytes) == ("ff15::c10e:1", BLOCK6_BYTES)


def test_a_command_is_told_until_it_is_obeyed_and_not_after(held: Sessions, rack: PretendRelay) -> None:
    begun(held, rack, 1, 2)
    before = list(rack.obeyed)
    held.scene.admin("POST", "/multicast/sessions/1/stop")
    held.desk.turn()
    for _ in range(3):
        lost = rack.turn(is_lost=True)
        assert [one.command for told in lost.epochs for one in told.commands][-1:] == [Stop()]
    rack.turn()
    rack.turn()
    again = rack.turn()
    assert [one for told in again.epochs for one in told.commands] == []
    assert [command for _, command in rack.obeyed[len(before) :]].count(Stop()) == 1


def test_a_turn_that_was_overtaken_is_not_believed(held: Sessions, rack: PretendRelay) -> None:
    begun(held, rack, 1)
    old = rack.said()
    rack.hear(1, done=4)
    rack.turn()
    assert rack.post(old).status_code == 200
    assert held.show().seats[0].parcels == 4


def test_a_relay_that_was_started_again_gets_another_epoch_and_never_the_same(
    held: Sessions, rack: PretendRelay
) -> None:
    [agent] = begun(held, rack, 1)
    [old] = rack.news
    keys = {one.order.master.value for one in (rack.orders.epochs if rack.orders else ())}
    rack.restart()
    assert all(one.order.stream != old for one in rack.turn().epochs), "its keys were used"
    until_told(held, rack)
    [new] = rack.news
    assert new == old + 1
    assert not keys & {one.order.master.value for one in (rack.orders.epochs if rack.orders else ())}
    rack.turn()
    assert seated(agent, old).stream == new
    assert held.show().epochs == 2
    answer = rack.post(rack.said(boot="first", number=1000))
    assert (answer.status_code, "another start" in answer.text) == (409, True)


def test_an_epoch_whose_order_was_lost_is_told_again(held: Sessions, rack: PretendRelay) -> None:
    held.arm("n01", relay="rack3")
    agent = agent_of(held.scene, 1)
    ask(agent)
    ends_s = time.monotonic() + WAIT_S
    while not (lost := rack.turn(is_lost=True)).epochs:
        assert time.monotonic() < ends_s
        rack.orders = lost
        held.turn(0.01)
        time.sleep(0.01)
    told = rack.turn()
    assert [one.order.stream for one in told.epochs] == [one.order.stream for one in lost.epochs]
    rack.turn()
    assert seated(agent).stream == told.epochs[0].order.stream


def test_a_head_that_was_restarted_goes_on_with_another_epoch(held: Sessions, rack: PretendRelay) -> None:
    [agent] = begun(held, rack, 1)
    [old] = rack.news
    held.restart()
    first = rack.turn()
    assert first.epochs == (), "it does not know the keys of the epoch: the relay gives it up"
    until_told(held, rack)
    [new] = rack.news
    assert new == old + 1
    rack.turn()
    assert seated(agent, old).stream == new
    rack.hear(1)
    both(held, rack)
    assert (new, Begin()) in rack.obeyed
    assert held.state() is SessionState.SENDING


def test_a_relay_that_is_lost_has_no_senders_and_then_no_sessions(held: Sessions, rack: PretendRelay) -> None:
    [agent] = begun(held, rack, 1)
    [old] = rack.news
    held.turn(LOST_S - 2)
    assert held.show().epochs == 1
    held.turn(2)
    later = ask(agent, old, heard=True)
    assert isinstance(later, SeatLater)
    assert "has not been heard of for 20 s" in str(held.scene.admin("GET", "/events", subject="session/1").json())
    held.turn(GIVEN_UP_S - LOST_S - 2)
    assert held.state() is SessionState.SENDING, "it may still come back"
    held.turn(2)
    assert held.state() is SessionState.FAILED
    said = ask(agent, old, heard=True)
    assert said == NoSeat("relay rack3 has not been heard of for 40 s")
    assert rack.turn().epochs == ()


def test_a_relay_that_comes_back_in_time_goes_on(held: Sessions, rack: PretendRelay) -> None:
    [agent] = begun(held, rack, 1)
    [old] = rack.news
    held.turn(LOST_S + 5)
    assert rack.turn().epochs == ()
    until_told(held, rack)
    rack.turn()
    assert seated(agent, old).stream == old + 1
    assert held.state() is SessionState.SENDING


def test_a_session_that_nobody_asks_for_waits_for_its_relay(held: Sessions, rack: PretendRelay) -> None:
    held.arm("n01", relay="rack3")
    held.turn(GIVEN_UP_S + 10)
    assert held.state() is SessionState.QUEUED
    said = ask(agent_of(held.scene, 1))
    assert isinstance(said, SeatLater)
    held.turn()
    assert held.state() is SessionState.FAILED


def test_each_wire_has_its_own_queue_and_share(held: Sessions, rack: PretendRelay) -> None:
    held.arm("n01")
    held.arm("n02", relay="rack3")
    held.arm("n03", relay="rack3")
    agents = [agent_of(held.scene, number) for number in (1, 2, 3)]
    for agent in agents:
        ask(agent)
    until_told(held, rack)
    held.until_started(1)
    both(held, rack)
    assert [held.state(one) for one in "123"] == [SessionState.GATHERING, SessionState.GATHERING, SessionState.QUEUED]
    waits = ask(agents[2])
    assert isinstance(waits, SeatLater)
    assert waits.text == "session 3 is queued: the link is taken by 2"
    assert len({(held.show(one).group, held.show(one).port) for one in "123"}) == 3
    [told] = rack.turn().epochs
    assert told.order.session == "2"
    leave(agents[1], "no")
    ends_s = time.monotonic() + WAIT_S
    while held.state("3") is SessionState.QUEUED:
        assert time.monotonic() < ends_s
        both(held, rack, 0.01)


def test_a_node_that_gives_up_is_told_to_the_sender_there(held: Sessions, rack: PretendRelay) -> None:
    [first, _] = begun(held, rack, 1, 2)
    leave(first, "its disk is slow", 0)
    rack.turn()
    assert rack.obeyed[-1][1].number == 1
    assert held.seats()["n01"] is SeatState.HTTPS


def test_a_turn_that_is_held_is_answered_when_there_is_something_new(
    held: Sessions, rack: PretendRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloner_server.api.relays.HELD_S", 10 * WAIT_S)
    agents = begun(held, rack, 1, 2)
    rack.turn()
    answers: list[int] = []
    with one_loop():
        other = dataclasses.replace(held.scene)  # clients of its own: one thread each

        def listen() -> None:
            headers = {"authorization": f"Bearer {rack.token}"}
            body = msgspec.json.encode(rack.said(is_held=True))
            answer = other.agents.post("/v1/relays/rack3/turn", headers=headers, content=body)
            answers.append(answer.status_code)

        thread = threading.Thread(target=listen)
        thread.start()
        time.sleep(0.5)
        assert answers == []
        leave(agents[0], "enough", 0)
        thread.join(WAIT_S)
    assert answers == [200], "as soon as it was told, not when the hold ends"
