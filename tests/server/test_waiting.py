"""Nodes that wait for a multicast session: who gets the agent, what it is told, how the waiting ends."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from starlette.testclient import TestClient

from cloner_core.admin.sessions import WaitingView
from cloner_core.facts import Facts
from cloner_core.messages import PROTOCOL
from cloner_core.seats import CheckIn, WaitHello, WaitReply
from cloner_pxe.decision import BootPolicy
from cloner_server.api.boot import boot_app
from cloner_server.boot import WAIT_ARGUMENT, BootDesk
from cloner_server.installer import Installer
from cloner_server.state import events
from cloner_server.tasks import waiting
from serverbench.scene import START_S, Agent, Scene, facts

MAC = "52:54:00:00:00:01"
KEY, OTHER_KEY = "ab" * 32, "cd" * 32
HOURS = 3600.0


@pytest.fixture
def http(scene: Scene, tmp_path: Path) -> TestClient:
    rules = dataclasses.replace(scene.core.rules, has_agent=True)
    scene.core = dataclasses.replace(scene.core, rules=rules)
    policy = BootPolicy(server_address="10.77.0.1", http_base="http://10.77.0.1:8080", agent_memory_bytes=1 << 20)
    installer = Installer(tmp_path / "kernel", "k1", tmp_path / "initramfs", "i1", 64 << 20)
    network = ipaddress.IPv4Network("10.77.0.0/24")
    desk = BootDesk(scene.core, policy, installer, "https://10.77.0.1:8443", network)
    return TestClient(boot_app(scene.core, desk, {}))


def script(http: TestClient) -> str:
    return str(http.get("/boot/ipxe", params={"mac": MAC.replace(":", "-"), "platform": "efi"}).text)


def claim(http: TestClient) -> str:
    found = re.search(r"cloner\.claim=(\S+)", script(http))
    return found.group(1) if found else ""


def ask(scene: Scene, value: str = "cloner-multicast", *, dry_run: bool = False, status: int = 200) -> httpx.Response:
    answer = scene.admin("POST", "/netboot", {"nodes": ("n01",), "value": value, "dry_run": dry_run})
    assert answer.status_code == status, answer.text
    return answer


def come(scene: Scene, token: str, said: Facts | None = None, key: str = KEY) -> httpx.Response:
    body = msgspec.json.encode(WaitHello(PROTOCOL, "test", token, key, said or facts(), link_mbps=1000))
    return scene.agents.post("/agent/v1/wait", content=body)


def check_in(scene: Scene, token: str, key: str = KEY) -> httpx.Response:
    return scene.agents.post("/agent/v1/wait/check-in", content=msgspec.json.encode(CheckIn(token, key)))


def reply(answer: httpx.Response) -> WaitReply:
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content, type=WaitReply)


def told(scene: Scene, what: str) -> list[dict[str, Any]]:
    with scene.core.database.read() as connection:
        return [one.detail for one in events.list_events(connection, limit=10_000) if one.what == what]


def who_waits(scene: Scene) -> list[WaitingView]:
    with scene.core.database.read() as connection:
        return waiting.list_waiting(connection, scene.clock.now_s)


def later(scene: Scene, seconds: float) -> list[str]:
    scene.clock.now_s += seconds
    core = scene.core
    with core.database.read() as connection:
        is_due = waiting.is_due(connection, scene.clock.now_s, core.rules)
    if not is_due:
        return []
    with core.database.write() as connection:
        return waiting.tidy(connection, core.act("server"), core.rules)


def waiting_node(scene: Scene, http: TestClient, **fields: Any) -> str:
    """Have n01 wait; return its claim."""
    scene.add_node(**fields)
    ask(scene)
    token = claim(http)
    assert reply(come(scene, token)).order == "wait"
    return token


def test_a_node_without_a_task_boots_an_agent_that_waits(scene: Scene, http: TestClient) -> None:
    scene.add_node()
    ask(scene)
    assert WAIT_ARGUMENT in script(http)
    assert scene.admin("GET", "/tasks").json() == [], "nothing is armed"
    [here] = who_waits(scene)
    assert (here.node, here.since_s, here.note) == ("n01", None, "has not netbooted yet")
    said = reply(come(scene, claim(http)))
    assert (said.order, said.node, said.claim) == ("wait", "n01", None)
    assert "multicast-image" in said.text
    [here] = who_waits(scene)
    assert (here.since_s, here.link_mbps, here.disks, here.note) == (START_S, 1000, ("/dev/vda 8.0 GiB",), "")
    assert scene.admin("GET", "/nodes/n01/facts").json()["disks"][0]["serial"] == "D1"
    assert scene.admin("GET", "/nodes/n01").json()["fingerprint"] == "", "to wait is not to be accepted"
    scene.clock.now_s += 200
    assert who_waits(scene)[0].note == "silent for 3 min"


def test_the_claim_of_a_node_that_waits_opens_nothing(scene: Scene, http: TestClient) -> None:
    scene.add_node()
    ask(scene)
    token = claim(http)
    assert Agent(scene).try_hello(token).status_code == 401
    hello = msgspec.json.encode({"protocol": PROTOCOL, "agent_version": "t", "claim": token, "public_key": KEY})
    hello = hello[:-1] + b',"facts":' + msgspec.json.encode(facts()) + b"}"
    assert scene.agents.post("/agent/v1/discover", content=hello).status_code == 401
    assert come(scene, token).status_code == 200
    assert come(scene, token).status_code == 200, "the reply was lost on the way"
    assert come(scene, token, key=OTHER_KEY).status_code == 409
    assert check_in(scene, token, key=OTHER_KEY).status_code == 401
    assert come(scene, "00" * 20).status_code == 401
    scene.arm(has_identity=False)
    assert come(scene, scene.mint()).status_code == 401, "that of a deploy does not wait"


def test_another_machine_is_turned_away_with_an_alarm(scene: Scene, http: TestClient) -> None:
    scene.add_node()
    ask(scene)
    assert come(scene, claim(http), facts("52:54:00:00:00:99")).status_code == 409
    assert told(scene, waiting.REFUSED)
    assert who_waits(scene)[0].since_s is None


def test_a_second_machine_with_its_mac_does_not_displace_who_waits(scene: Scene, http: TestClient) -> None:
    first, second = waiting_node(scene, http), claim(http)
    scene.core.stopping.set()  # nothing is held
    later(scene, 27)
    assert reply(check_in(scene, first)).order == "wait"
    later(scene, 3)
    twin = facts(serial="TWIN")
    before = scene.admin("GET", "/nodes/n01/facts").json()
    refused = come(scene, second, twin, key=OTHER_KEY)
    assert refused.status_code == 409
    assert "second machine" in refused.text
    assert "second machine" in told(scene, waiting.REFUSED)[0]["why"]
    assert scene.admin("GET", "/nodes/n01/facts").json() == before
    assert check_in(scene, second, key=OTHER_KEY).status_code == 401
    assert reply(check_in(scene, first)).order == "wait"
    assert reply(come(scene, first)).order == "wait", "the first may say hello again"
    later(scene, 90)
    assert reply(come(scene, second, twin, key=OTHER_KEY)).order == "wait", "the first has gone silent"
    assert check_in(scene, first).status_code == 401
    assert len(told(scene, waiting.REFUSED)) == 1


def test_a_machine_that_was_restarted_waits_until_its_former_boot_is_silent_and_nobody_is_alarmed(
    scene: Scene, http: TestClient
) -> None:
    waiting_node(scene, http)
    later(scene, 40)
    again = claim(http)
    later(scene, 20)
    early = come(scene, again, key=OTHER_KEY)
    assert early.status_code == 503
    assert "30 s" in early.text
    later(scene, 30)
    assert reply(come(scene, again, key=OTHER_KEY)).order == "wait"
    assert told(scene, waiting.REFUSED) == []


def test_a_node_that_waits_is_called_at_once_and_becomes_the_attempt_of_its_task(
    scene: Scene, http: TestClient
) -> None:
    token = waiting_node(scene, http)
    answers: list[httpx.Response] = []
    held = threading.Thread(target=lambda: answers.append(check_in(scene, token)))
    began_s = time.monotonic()
    held.start()
    while not scene.core.calls._held:
        assert held.is_alive()
        time.sleep(0.01)
    ask(scene, "cloner")
    held.join(10)
    assert time.monotonic() - began_s < 10
    said = reply(answers[0])
    assert said.order == "go"
    assert said.claim is not None
    assert not scene.core.calls._held
    told_task = Agent(scene).hello(said.claim.value).task
    assert (told_task.node, told_task.session) == ("n01", "")
    assert who_waits(scene) == []
    assert check_in(scene, token).status_code == 401, "it waits no longer"


def test_a_node_sent_elsewhere_is_told_to_leave(scene: Scene, http: TestClient) -> None:
    token = waiting_node(scene, http)
    ask(scene, "local")
    said = reply(check_in(scene, token))
    assert said.order == "leave"
    assert "local" in said.text
    assert WAIT_ARGUMENT not in script(http)
    later(scene, 700)
    assert check_in(scene, token).status_code == 401


def test_waiting_ends_after_its_limit_and_netboot_is_what_it_was(scene: Scene, http: TestClient) -> None:
    scene.add_node()
    ask(scene, "discover")
    ask(scene)
    token = claim(http)
    assert reply(come(scene, token)).order == "wait"
    scene.core.stopping.set()  # nothing is held
    assert later(scene, 2 * HOURS - 1) == []
    assert reply(check_in(scene, token)).order == "wait"
    assert later(scene, 2) == ["n01"]
    assert scene.netboot() == "discover"
    [event] = told(scene, "waited too long")
    assert "2 h" in event["why"]
    said = reply(check_in(scene, token))
    assert (said.order, said.text) == ("leave", event["why"])
    assert later(scene, 1) == [], "it is said once"


def test_a_node_that_began_to_wait_again_after_a_restart_keeps_its_limit(scene: Scene, http: TestClient) -> None:
    waiting_node(scene, http)
    later(scene, HOURS)
    assert reply(come(scene, claim(http), key=OTHER_KEY)).order == "wait"
    assert later(scene, HOURS + 1) == ["n01"]
    ask(scene)
    assert who_waits(scene)[0].since_s is None, "asked anew it has its time anew"


@pytest.mark.parametrize("is_dry", [True, False])
def test_a_node_with_a_live_task_is_not_made_to_wait(scene: Scene, http: TestClient, is_dry: bool) -> None:
    scene.add_node()
    task = scene.arm(has_identity=False)
    assert f"task {task}" in ask(scene, dry_run=is_dry, status=409).text
    assert scene.netboot() == "cloner"


def test_a_dry_run_changes_nothing(scene: Scene, http: TestClient) -> None:
    scene.add_node()
    before = scene.state_dump()
    ask(scene, dry_run=True)
    assert scene.state_dump() == before


def test_without_an_agent_nobody_waits(scene: Scene) -> None:
    rules = dataclasses.replace(scene.core.rules, has_agent=False)
    scene.core = dataclasses.replace(scene.core, rules=rules)
    scene.add_node()
    assert "cloner-multicast" in ask(scene, status=409).text


def test_the_claim_of_a_node_held_by_a_frozen_task_is_not_served(scene: Scene, http: TestClient) -> None:
    waiting_node(scene, http)
    task = scene.arm(has_identity=False)
    agent = Agent(scene)
    agent.hello()
    stranger = Agent(scene, facts("52:54:00:00:00:99"))
    assert stranger.try_hello(scene.mint()).status_code == 409
    assert scene.task(task).state.value == "frozen"
    ask(scene, "cloner-multicast", status=409)
    assert claim(http) == ""
