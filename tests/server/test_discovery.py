"""Inventories without a task: who gets the agent, what it may say, and that netboot goes back to `local`."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from starlette.testclient import TestClient

from cloner_core.facts import Facts, fingerprint
from cloner_core.messages import PROTOCOL, Cause, DiscoverFailure, Failure, Hello, Stage
from cloner_pxe.decision import BootPolicy
from cloner_server.api.boot import boot_app
from cloner_server.boot import DISCOVER_ARGUMENT, BootDesk
from cloner_server.installer import Installer
from cloner_server.state import events, nodes
from cloner_server.tasks import discovery
from serverbench.scene import START_S, Agent, Scene, facts

MAC, STRANGER = "52:54:00:00:00:01", "52:54:00:00:00:99"
KEY, OTHER_KEY = "ab" * 32, "cd" * 32


@pytest.fixture
def scene(scene: Scene) -> Scene:
    """A server that offers an agent."""
    with_rules(scene, has_agent=True)
    return scene


def with_rules(scene: Scene, **changes: object) -> None:
    rules = dataclasses.replace(scene.core.rules, **changes)  # type: ignore[arg-type]
    scene.core = dataclasses.replace(scene.core, rules=rules)


@pytest.fixture
def http(scene: Scene, tmp_path: Path) -> TestClient:
    policy = BootPolicy(server_address="10.77.0.1", http_base="http://10.77.0.1:8080", agent_memory_bytes=1 << 20)
    installer = Installer(tmp_path / "kernel", "k1", tmp_path / "initramfs", "i1", 64 << 20)
    network = ipaddress.IPv4Network("10.77.0.0/24")
    desk = BootDesk(scene.core, policy, installer, "https://10.77.0.1:8443", network)
    return TestClient(boot_app(scene.core, desk, {}))


def script(http: TestClient, mac: str = MAC) -> str:
    return str(http.get("/boot/ipxe", params={"mac": mac.replace(":", "-"), "platform": "efi"}).text)


def claim(http: TestClient, mac: str = MAC) -> str:
    found = re.search(r"cloner\.claim=(\S+)", script(http, mac))
    return found.group(1) if found else ""


def ask(scene: Scene, *names: str, status: int = 200) -> httpx.Response:
    answer = scene.admin("POST", "/netboot", {"nodes": names or ("n01",), "value": "discover"})
    assert answer.status_code == status, answer.text
    return answer


def tell(scene: Scene, token: str, said: Facts | None = None, key: str = KEY) -> httpx.Response:
    body = msgspec.json.encode(Hello(PROTOCOL, "test", token, key, said or facts()))
    return scene.agents.post("/agent/v1/discover", content=body)


def told(scene: Scene, what: str) -> list[dict[str, Any]]:
    with scene.core.database.read() as connection:
        return [one.detail for one in events.list_events(connection, limit=10_000) if one.what == what]


def later(scene: Scene, seconds: float) -> None:
    scene.clock.now_s += seconds
    core = scene.core
    with core.database.write() as connection:
        is_due = discovery.is_due(connection, scene.clock.now_s, core.rules, START_S)
        if is_due:
            discovery.tidy(connection, core.act("server"), core.rules, START_S)


def test_a_node_tells_its_facts_once_and_starts_from_its_disk_again(scene: Scene, http: TestClient) -> None:
    scene.add_node()
    ask(scene)
    token = claim(http)
    assert DISCOVER_ARGUMENT in script(http)
    assert tell(scene, token).json() == {"name": "n01"}
    assert scene.netboot() == "local"
    assert scene.admin("GET", "/nodes/n01/facts").json()["disks"][0]["serial"] == "D1"
    assert scene.admin("GET", "/nodes/n01").json()["seen_s"] == START_S
    assert scene.admin("GET", "/nodes/n01").json()["fingerprint"] == "", "to tell facts is not to be accepted"
    assert scene.admin("GET", "/tasks").json() == [], "an inventory is no task"
    assert claim(http) == ""
    assert told(scene, "discovered")[0]["disks"] == 1


def test_the_claim_opens_nothing_but_the_inventory_and_that_once(scene: Scene, http: TestClient) -> None:
    scene.add_node()
    ask(scene)
    token = claim(http)
    assert Agent(scene).try_hello(token).status_code == 401, "no attempt comes of it"
    assert tell(scene, token).status_code == 200
    assert tell(scene, token).status_code == 200, "the reply was lost on the way"
    assert tell(scene, token, key=OTHER_KEY).status_code == 409
    assert told(scene, discovery.REFUSED)
    scene.clock.now_s += 4000
    assert tell(scene, "00" * 20).status_code == 401


def test_the_claim_of_a_deploy_tells_no_inventory(scene: Scene) -> None:
    scene.add_node()
    scene.arm()
    assert tell(scene, scene.mint()).status_code == 401


def test_an_expired_claim_is_refused(scene: Scene, http: TestClient) -> None:
    scene.add_node()
    ask(scene)
    token = claim(http)
    scene.clock.now_s += scene.core.rules.claim_life_s + 1
    assert tell(scene, token).status_code == 401
    assert scene.netboot() == "discover"


def test_local_takes_the_claims_back(scene: Scene, http: TestClient) -> None:
    scene.add_node()
    ask(scene)
    token = claim(http)
    scene.admin("POST", "/netboot", {"nodes": ["n01"], "value": "local"})
    assert claim(http) == ""
    assert tell(scene, token).status_code == 401


def test_a_node_with_a_live_task_is_refused_and_then_no_node_is_set(scene: Scene) -> None:
    scene.add_node()
    scene.add_node("n02", "52:54:00:00:00:02")
    task_id = scene.arm()
    assert f"n01 has task {task_id}, which is queued" in ask(scene, "n02", "n01", status=409).json()["error"]
    assert (scene.netboot("n01"), scene.netboot("n02")) == ("cloner", "local")


def test_too_little_memory_for_the_agent_is_refused_beforehand(scene: Scene) -> None:
    scene.add_node()
    with scene.core.database.write() as connection:
        nodes.remember_facts(connection, scene.core.act("test"), "n01", facts())
    with_rules(scene, agent_memory_bytes=4 << 30)
    assert "n01 has 2048 MiB of memory, the agent needs 4096 MiB" in ask(scene, status=409).json()["error"]


def test_a_server_without_agent_refuses(scene: Scene) -> None:
    scene.add_node()
    with_rules(scene, has_agent=False)
    assert "no agent" in ask(scene, status=409).json()["error"]


def test_a_deploy_that_is_armed_meanwhile_goes_first(scene: Scene, http: TestClient) -> None:
    scene.add_node()
    ask(scene)
    token = claim(http)
    scene.arm()
    assert DISCOVER_ARGUMENT not in script(http)
    assert tell(scene, token).status_code == 200
    assert scene.netboot() == "cloner", "an inventory does not disarm it"


@pytest.mark.parametrize("fault", ["mac", "uuid", "fingerprint"])
def test_facts_of_another_machine_are_refused_with_an_alarm(scene: Scene, http: TestClient, fault: str) -> None:
    accepted = "0" * 32 if fault == "fingerprint" else ""
    scene.add_node(uuid="11111111-2222-3333-4444-555555555555" if fault == "uuid" else "")
    with scene.core.database.write() as connection:
        if accepted:
            nodes.accept_fingerprint(connection, scene.core.act("test"), "n01", accepted, why="test")
    ask(scene)
    said = facts(STRANGER) if fault == "mac" else facts()
    assert tell(scene, claim(http), said).status_code == 409
    assert scene.admin("GET", "/nodes/n01/facts").status_code == 404, "nothing of it is kept"
    assert len(told(scene, discovery.REFUSED)) == 1
    if fault == "fingerprint":
        assert scene.admin("GET", "/nodes/n01/hardware").json()["offered"]["fingerprint"] == fingerprint(said)


def test_where_admins_accept_a_machine_that_was_discovered_can_be_accepted(scene: Scene, http: TestClient) -> None:
    with_rules(scene, accept="admin")
    scene.add_node()
    ask(scene)
    assert tell(scene, claim(http)).status_code == 200
    assert scene.admin("GET", "/nodes/n01/hardware").json()["offered"]["fingerprint"] == fingerprint(facts())


def test_a_failure_of_the_agent_is_told_and_the_node_goes_home(scene: Scene, http: TestClient) -> None:
    scene.add_node()
    ask(scene)
    failure = DiscoverFailure(claim(http), KEY, "sfdisk ended with status 1", "look at its console")
    for _ in range(2):
        answer = scene.agents.post("/agent/v1/discover/fail", content=msgspec.json.encode(failure))
        assert answer.status_code == 200
    assert [one["message"] for one in told(scene, discovery.FAILED)] == ["sfdisk ended with status 1"]
    assert scene.netboot() == "local"


def test_a_node_whose_agent_never_comes_goes_home_with_an_alarm_that_says_how_far_it_got(
    scene: Scene, http: TestClient
) -> None:
    scene.add_node()
    ask(scene)
    later(scene, 86400)
    assert scene.netboot() == "discover", "it was not switched on yet"
    for _ in range(40):
        claim(http)
        scene.clock.now_s += 20
    later(scene, scene.core.rules.boot_s - 40 * 20 - 1)
    assert scene.netboot() == "discover"
    later(scene, 2)
    assert scene.netboot() == "local"
    (failure,) = told(scene, discovery.FAILED)
    assert "40 times" in failure["message"]


@pytest.mark.parametrize("is_sent_home", [False, True], ids=["waits", "sent to its disk"])
def test_a_node_whose_disk_was_touched_goes_back_to_what_it_did(
    scene: Scene, http: TestClient, is_sent_home: bool
) -> None:
    scene.add_node()
    scene.arm()
    agent = Agent(scene)
    agent.hello()
    agent.beat(Stage.RESTORE)
    agent.fail(Failure(Stage.RESTORE, Cause.NETWORK, "gone", "look", is_destroyed=True))
    if is_sent_home:
        scene.admin("POST", "/netboot", {"nodes": ["n01"], "value": "local"})
    before = scene.netboot()
    ask(scene)
    assert tell(scene, claim(http)).status_code == 200
    assert (before, scene.netboot()) == (("local", "local") if is_sent_home else ("cloner", "cloner"))


def test_a_machine_that_is_no_node_is_discovered_when_an_admin_allows_it_and_takes_its_inventory_along(
    scene: Scene, http: TestClient
) -> None:
    assert claim(http, STRANGER) == "", "nobody allowed it"
    assert scene.admin("POST", "/machines", {"macs": [STRANGER.upper()], "value": "discover"}).status_code == 200
    token = claim(http, STRANGER)
    assert tell(scene, token, facts("52:54:00:00:00:98")).status_code == 409, "another machine"
    assert tell(scene, token, facts(STRANGER)).json() == {"name": STRANGER}
    assert claim(http, STRANGER) == ""
    (view,) = scene.admin("GET", "/machines").json()
    assert (view["mac"], view["netboot"], view["disks"]) == (STRANGER, "local", 1)
    assert scene.admin("GET", f"/machines/{STRANGER}/facts").json()["boot_mac"] == STRANGER
    scene.add_node("n09", STRANGER)
    assert scene.admin("GET", "/nodes/n09/facts").json()["boot_mac"] == STRANGER
    assert scene.admin("GET", "/machines").json() == []
    refused = scene.admin("POST", "/machines", {"macs": [STRANGER], "value": "discover"})
    assert "is n09" in refused.json()["error"]


def test_a_machine_that_was_forgotten_tells_nothing(scene: Scene, http: TestClient) -> None:
    scene.admin("POST", "/machines", {"macs": [STRANGER], "value": "discover"})
    token = claim(http, STRANGER)
    assert scene.admin("DELETE", f"/machines/{STRANGER}").status_code == 200
    assert tell(scene, token, facts(STRANGER)).status_code == 401
    assert scene.admin("GET", "/machines").json() == []
    assert scene.admin("DELETE", f"/machines/{STRANGER}").status_code == 404
