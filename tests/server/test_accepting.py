"""Which machine a node is: by what an admin said of it, by an admin's word, or by the first hello."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

from cloner_core.admin.nodes import HardwareView
from cloner_core.admin.tasks import TaskState
from cloner_core.facts import Dmi, Facts, fingerprint
from cloner_core.messages import Vaulted
from cloner_server.state import events
from serverbench.scene import Agent, Scene, facts

UUID = "4c4c4544-0034-4a10-8052-b7c04f4d3032"
OTHER = "11111111-1111-4111-8111-111111111111"


def machine(uuid: str = UUID, serial: str = "7XJ4M02") -> Facts:
    return msgspec.structs.replace(facts(), dmi=Dmi(system_uuid=uuid, serial=serial, vendor="ACME", product="R1"))


@pytest.fixture
def strict(scene: Scene) -> Scene:
    """A site where an admin accepts each machine."""
    rules = dataclasses.replace(scene.core.rules, accept="admin")
    return dataclasses.replace(scene, core=dataclasses.replace(scene.core, rules=rules))


def armed(scene: Scene, **fields: Any) -> str:
    scene.add_node(**fields)
    return scene.arm()


def hardware(scene: Scene) -> HardwareView:
    return msgspec.json.decode(scene.admin("GET", "/nodes/n01/hardware").content, type=HardwareView)


def test_the_first_hello_wins_where_nothing_else_was_said_and_that_is_written_down(scene: Scene) -> None:
    armed(scene)
    Agent(scene, machine()).hello()
    assert hardware(scene).accepted == fingerprint(machine())
    with scene.core.database.read() as connection:
        (told,) = [e for e in events.list_events(connection, obj="node/n01") if e.what == "hardware accepted"]
    assert told.detail["why"] == "it said hello first"


@pytest.mark.parametrize(
    "given", [{"uuid": UUID.upper()}, {"serial": "7XJ4M02"}, {"uuid": UUID, "serial": " 7XJ4M02 "}]
)
def test_a_machine_that_is_what_was_said_of_it_is_accepted_even_where_an_admin_decides(
    strict: Scene, given: dict[str, str]
) -> None:
    armed(strict, **given)
    agent = Agent(strict, machine())
    agent.hello()
    agent.confirm_plan()
    agent.told("identity", Vaulted)


@pytest.mark.parametrize("given", [{"uuid": OTHER}, {"serial": "7XJ4M03"}, {"uuid": UUID, "serial": "7XJ4M03"}])
def test_a_machine_that_is_not_is_turned_away_and_cannot_be_accepted_by_mistake(
    scene: Scene, given: dict[str, str]
) -> None:
    task_id = armed(scene, **given)
    answer = Agent(scene, machine()).try_hello(scene.mint())
    assert answer.status_code == 409
    assert "cloner node set n01 --" in answer.json()["hint"]
    assert scene.task(task_id).state is TaskState.FROZEN
    assert (hardware(scene).accepted, hardware(scene).offered) == ("", None)


def test_what_was_said_holds_against_hardware_that_was_accepted_before(scene: Scene) -> None:
    armed(scene)
    Agent(scene, machine()).hello()
    assert scene.admin("PATCH", "/nodes/n01", {"uuid": OTHER}).json()["uuid"] == OTHER
    scene.clock.now_s += 61
    assert Agent(scene, machine()).try_hello(scene.mint()).status_code == 409


def test_where_an_admin_decides_a_machine_waits_for_his_word(strict: Scene) -> None:
    task_id = armed(strict)
    answer = Agent(strict, machine()).try_hello(strict.mint())
    assert (answer.status_code, "cloner node accept n01" in answer.json()["hint"]) == (409, True)
    assert strict.task(task_id).state is TaskState.FROZEN
    offered = hardware(strict).offered
    assert offered is not None
    assert (offered.uuid, offered.serial, offered.vendor, offered.product) == (UUID, "7XJ4M02", "ACME", "R1")
    assert strict.admin("POST", "/nodes/n01/accept", {"fingerprint": "0" * 32}).status_code == 409
    asked = {"fingerprint": offered.fingerprint}
    assert strict.admin("POST", "/nodes/n01/accept", asked | {"dry_run": True}).status_code == 200
    assert hardware(strict).accepted == ""
    assert strict.admin("POST", "/nodes/n01/accept", asked).status_code == 200
    assert strict.admin("POST", "/nodes/n01/accept", asked).status_code == 200, "twice is once"
    assert hardware(strict) == HardwareView(offered.fingerprint, None)
    strict.admin("POST", f"/tasks/{task_id}/retry")
    Agent(strict, machine()).hello()


def test_a_board_that_was_replaced_is_accepted_by_what_it_is_and_not_whoever_comes_next(scene: Scene) -> None:
    task_id = armed(scene)
    Agent(scene, machine()).hello()
    scene.clock.now_s += 61
    assert Agent(scene, machine(OTHER)).try_hello(scene.mint()).status_code == 409
    scene.admin("POST", "/nodes/n01/accept", {"fingerprint": fingerprint(machine(OTHER))})
    scene.admin("POST", f"/tasks/{task_id}/retry")
    assert Agent(scene, machine(serial="a third")).try_hello(scene.mint()).status_code == 409
    scene.admin("POST", f"/tasks/{task_id}/retry")
    Agent(scene, machine(OTHER)).hello()


def test_a_machine_without_the_nodes_mac_is_never_offered(scene: Scene) -> None:
    armed(scene)
    Agent(scene, facts("52:54:00:00:00:99")).try_hello(scene.mint())
    assert hardware(scene).offered is None


def test_hardware_that_is_forgotten_takes_its_rival_with_it(scene: Scene) -> None:
    armed(scene)
    Agent(scene, machine()).hello()
    scene.clock.now_s += 61
    Agent(scene, machine(OTHER)).try_hello(scene.mint())
    assert scene.admin("PATCH", "/nodes/n01", {"fingerprint": ""}).status_code == 200
    assert hardware(scene) == HardwareView("", None)


@pytest.mark.parametrize("uuid", ["x", "4c4c4544", UUID + "0", "4c4c4544-0034-4a10-8052-b7c04f4d303g"])
def test_what_is_no_uuid_is_refused(scene: Scene, uuid: str) -> None:
    scene.add_node()
    assert "uuid" in scene.admin("PATCH", "/nodes/n01", {"uuid": uuid}).json()["faults"][0]
    spec = {"name": "n02", "macs": ["525400000002"], "uuid": uuid}
    assert "uuid" in scene.admin("POST", "/nodes", spec).json()["faults"][0]
