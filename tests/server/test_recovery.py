"""What is not well is what the newest task of each node says; many are queued again together or not at all."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest

from cloner_core.admin.tasks import TaskState
from cloner_core.facts import Dmi
from cloner_core.failures import NotWell
from cloner_core.lldp import Neighbor
from cloner_core.messages import Beat, BeatReply, Cause, Failure, Progress, Stage
from cloner_server.state import nodes
from cloner_server.tasks import endings
from serverbench.scene import Agent, Scene, facts

EARLY = Failure(Stage.PLAN, Cause.NO_DISK, "none", "add one", False)
LATE = Failure(Stage.RESTORE, Cause.DISK_IO, "sector 7", "replace it", True)


def mac(number: int) -> str:
    return f"52:54:00:00:00:{number:02}"


def start(scene: Scene, number: int, product: str = "R640") -> Agent:
    name = f"n{number:02}"
    scene.add_node(name, mac(number))
    scene.arm(name, has_identity=False)
    machine = msgspec.structs.replace(facts(mac(number)), dmi=Dmi(vendor="Dell", product=product))
    agent = Agent(scene, machine)
    agent.hello(scene.mint(name))
    return agent


def seen(scene: Scene) -> list[NotWell]:
    return msgspec.json.decode(scene.admin("GET", "/failures").content, type=list[NotWell])


def retry(scene: Scene, *tasks: str, **more: Any) -> httpx.Response:
    return scene.admin("POST", "/failures/retry", {"tasks": tasks} | more)


@pytest.fixture
def failed(scene: Scene) -> Scene:
    start(scene, 1).fail(EARLY)
    start(scene, 2, product="").fail(LATE)
    start(scene, 3).beat()
    return scene


def test_the_failed_are_told_with_their_model(failed: Scene) -> None:
    assert [(one.task.node, one.model, one.has_bundle) for one in seen(failed)] == [
        ("n01", "R640", False),
        ("n02", "Dell", False),
    ]


def test_the_failed_are_told_with_the_switch_they_hang_on(failed: Scene) -> None:
    agent = start(failed, 4)
    progress = Progress(stage=Stage.RESTORE)
    plugged = Neighbor("eth0", mac(4), "sw-r12", "00:11:22:33:44:55", "Ethernet1/12")
    for _ in range(2):
        agent.told("beat", BeatReply, Beat(progress=progress, neighbors=(plugged,)))
    agent.told("beat", BeatReply, Beat(progress=progress))  # nothing new is no news that nothing is there
    agent.fail(LATE)
    assert failed.admin("GET", "/nodes/n04").json()["neighbors"] == [msgspec.to_builtins(plugged)]
    told = [event["what"] for event in failed.admin("GET", "/events", object="node/n04").json()]
    assert told.count("switch told") == 1

    def switches() -> list[str]:
        return [one.switch for one in seen(failed)]

    assert switches() == ["", "", "sw-r12"]
    assert failed.admin("PATCH", "/nodes/n04", {"switch": "rack 12, top"}).status_code == 200
    with failed.core.database.write() as connection:
        nodes.remember_relay(connection, failed.core.act("boot"), "n01", "10.9.0.1")
    assert switches() == ["relay 10.9.0.1", "", "rack 12, top"]
    assert failed.admin("PATCH", "/nodes/n04", {"switch": "\x1b[2J"}).status_code == 400
    too_many = Beat(progress=progress, neighbors=(plugged,) * 65)
    assert agent.post("beat", too_many).status_code == 400


def test_a_failure_that_a_later_task_follows_is_history(failed: Scene) -> None:
    failed.arm("n01", has_identity=False)
    assert [one.task.node for one in seen(failed)] == ["n02"]


def test_lost_and_frozen_are_told_too(failed: Scene) -> None:
    from cloner_server.tasks import housekeeping

    failed.clock.now_s += 61
    with failed.core.database.write() as connection:
        housekeeping.tidy(connection, failed.core.act("server"), failed.core.rules, 0.0)
    assert {one.task.node: one.task.state for one in seen(failed)}["n03"] is TaskState.LOST
    failed.add_node("n04", mac(4))
    failed.arm("n04", has_identity=False)
    assert Agent(failed, facts(mac(9))).try_hello(failed.mint("n04")).status_code == 409
    assert {one.task.node: one.task.state for one in seen(failed)}["n04"] is TaskState.FROZEN


def test_the_failed_are_queued_again_together(failed: Scene) -> None:
    answer = retry(failed, "1", "2", "1")
    assert answer.status_code == 200, answer.text
    assert [task["state"] for task in answer.json()] == ["queued", "queued"]
    assert (failed.netboot("n01"), failed.netboot("n02")) == ("cloner", "cloner")
    assert seen(failed) == []


def test_a_dry_run_meets_the_rules_and_changes_nothing(failed: Scene) -> None:
    before = failed.state_dump()
    assert retry(failed, "1", "2", dry_run=True).json()[0]["state"] == "queued"
    assert retry(failed, "1", "3", dry_run=True).status_code == 409
    assert failed.state_dump() == before


def test_all_or_none_and_every_reason_is_told(failed: Scene) -> None:
    failed.admin("PATCH", "/nodes/n02", {"is_protected": True})
    before = failed.state_dump()
    told = retry(failed, "1", "2", "3").text
    assert "task 2 of n02: n02 is protected" in told
    assert "task 3 of n03 is running, not failed" in told
    assert retry(failed, "1", "99").status_code == 404
    assert retry(failed, "1", "2", limit=1).status_code == 409
    assert failed.state_dump() == before


def test_what_a_later_task_has_made_is_not_an_older_tasks_to_destroy(failed: Scene) -> None:
    later = failed.arm("n01")
    agent = Agent(failed, msgspec.structs.replace(facts(mac(1)), dmi=Dmi(vendor="Dell", product="R640")))
    agent.hello(failed.mint("n01"))
    body, _ = agent.deploy()
    with failed.core.database.write() as connection:
        assert endings.accept_confirm(connection, failed.core.act("clone"), agent.confirmation(body)) is None
    before = failed.state_dump()
    refusals = retry(failed, "2", "1"), failed.admin("POST", "/tasks/1/retry")
    for refusal in refusals:
        assert refusal.status_code == 409, refusal.text
        assert f"n01 had task {later} since, which is done" in refusal.text
    assert failed.state_dump() == before


@pytest.mark.parametrize("end", ["abort", "fail"])
def test_of_several_tasks_that_ended_the_newest_alone_is_queued_again(failed: Scene, end: str) -> None:
    later = failed.arm("n02", has_identity=False)
    if end == "abort":
        failed.admin("POST", f"/tasks/{later}/abort")
    else:
        agent = Agent(failed, msgspec.structs.replace(facts(mac(2)), dmi=Dmi(vendor="Dell")))
        agent.hello(failed.mint("n02"))
        agent.fail(EARLY)
    assert failed.admin("POST", "/tasks/2/retry").status_code == 409
    assert failed.admin("POST", f"/tasks/{later}/retry").status_code == 200


def test_a_frozen_or_aborted_task_is_not_among_the_failed(failed: Scene) -> None:
    failed.admin("POST", "/tasks/3/abort")
    assert retry(failed, "3").status_code == 409
