"""A node is never sent to a disk that an attempt may have touched since the last receipt: it waits."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from cloner_core.admin.tasks import TaskState
from cloner_core.messages import Cause, Failure, Stage
from cloner_server.tasks import housekeeping
from serverbench.scene import START_S, Agent, Scene

LATE = Failure(stage=Stage.RESTORE, cause=Cause.NETWORK, message="gone", hint="look", is_destroyed=True)
EARLY = Failure(stage=Stage.PLAN, cause=Cause.NO_DISK, message="no disk", hint="add one", is_destroyed=False)


@pytest.fixture
def task_id(scene: Scene) -> str:
    scene.add_node()
    return scene.arm()


def tidy(scene: Scene) -> None:
    with scene.core.database.write() as connection:
        housekeeping.tidy(connection, scene.core.act("server"), scene.core.rules, START_S - 1e6)


def power_cut(scene: Scene, stage: Stage | None) -> None:
    """An attempt that got the word to go ahead, showed `stage` or had no time to, and was never heard of again."""
    agent = Agent(scene)
    agent.hello()
    agent.confirm_plan()
    if stage is not None:
        agent.beat(stage)
    scene.clock.now_s += 61


@pytest.mark.parametrize("stage", [None, Stage.GUARD, Stage.RESTORE])
def test_an_early_failure_after_a_power_cut_does_not_send_the_node_to_a_half_written_disk(
    scene: Scene, task_id: str, stage: Stage | None
) -> None:
    power_cut(scene, stage)
    second = Agent(scene)
    second.hello()
    second.fail(EARLY)
    assert (scene.task(task_id).state, scene.netboot()) == (TaskState.FAILED, "cloner")
    failure = scene.task(task_id).failure
    assert failure is not None
    assert failure.is_destroyed


def test_an_early_failure_after_an_early_failure_is_still_early(scene: Scene, task_id: str) -> None:
    first = Agent(scene)
    first.hello()
    first.confirm_plan()
    first.fail(msgspec.structs.replace(EARLY, stage=Stage.GUARD))
    assert scene.netboot() == "local"
    scene.admin("POST", f"/tasks/{task_id}/retry")
    second = Agent(scene)
    second.hello()
    second.fail(EARLY)
    assert (scene.task(task_id).state, scene.netboot()) == (TaskState.FAILED, "local")


def test_a_retry_that_is_aborted_leaves_a_touched_disk_alone(scene: Scene, task_id: str) -> None:
    agent = Agent(scene)
    agent.hello()
    agent.confirm_plan()
    agent.beat(Stage.RESTORE)
    agent.fail(msgspec.structs.replace(EARLY, stage=Stage.RESTORE, is_destroyed=True))
    scene.admin("POST", f"/tasks/{task_id}/retry")
    scene.admin("POST", f"/tasks/{task_id}/abort")
    assert (scene.task(task_id).state, scene.netboot()) == (TaskState.ABORTED, "cloner")


def destroyed(scene: Scene) -> None:
    """A task has failed when it had begun to write."""
    agent = Agent(scene)
    agent.hello()
    agent.confirm_plan()
    agent.beat(Stage.RESTORE)
    agent.fail(LATE)


def fail_early(scene: Scene, task_id: str) -> None:
    agent = Agent(scene)
    agent.hello()
    agent.fail(EARLY)


def never_come(scene: Scene, task_id: str) -> None:
    scene.mint()
    scene.clock.now_s += scene.core.rules.boot_s
    tidy(scene)


def be_aborted(scene: Scene, task_id: str) -> None:
    assert scene.admin("POST", f"/tasks/{task_id}/abort").status_code == 200


ENDS = [fail_early, never_come, be_aborted]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_a_disk_that_a_person_sent_the_node_to_since_is_not_touched(
    scene: Scene, task_id: str, end: Callable[[Scene, str], None]
) -> None:
    destroyed(scene)
    assert scene.admin("POST", "/netboot", {"nodes": ["n01"], "value": "local"}).status_code == 200
    end(scene, scene.arm())
    assert scene.netboot() == "local"


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_a_disk_that_an_earlier_task_touched_is_touched(
    scene: Scene, task_id: str, end: Callable[[Scene, str], None]
) -> None:
    destroyed(scene)
    second = scene.arm()
    end(scene, second)
    failure = scene.task(second).failure
    assert scene.netboot() == "cloner"
    assert failure is None or failure.is_destroyed


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_what_came_before_a_receipt_counts_no_longer(
    scene: Scene, task_id: str, end: Callable[[Scene, str], None]
) -> None:
    destroyed(scene)
    scene.admin("POST", f"/tasks/{task_id}/retry")
    agent = Agent(scene)
    agent.hello()
    agent.beat(Stage.RESTORE)
    agent.deploy()
    be_aborted(scene, task_id)
    second = scene.arm()
    end(scene, second)
    failure = scene.task(second).failure
    assert scene.netboot() == "local"
    assert failure is None or not failure.is_destroyed


def test_what_a_retry_touched_after_a_receipt_counts(scene: Scene, task_id: str) -> None:
    agent = Agent(scene)
    agent.hello()
    agent.deploy()
    be_aborted(scene, task_id)
    scene.admin("POST", f"/tasks/{task_id}/retry")
    destroyed(scene)
    fail_early(scene, scene.arm())
    assert scene.netboot() == "cloner"


def test_a_disk_of_another_node_is_another_disk(scene: Scene, task_id: str) -> None:
    destroyed(scene)
    scene.add_node("n02", "52:54:00:00:00:02")
    be_aborted(scene, scene.arm("n02"))
    assert scene.netboot("n02") == "local"


def test_five_lost_attempts_that_touched_nothing_give_the_node_its_disk_back(scene: Scene, task_id: str) -> None:
    for _ in range(5):
        Agent(scene).hello()
        scene.clock.now_s += 61
    assert Agent(scene).try_hello(scene.mint()).status_code == 409
    failure = scene.task(task_id).failure
    assert failure is not None
    assert (failure.is_destroyed, scene.netboot()) == (False, "local")


def test_five_lost_attempts_of_which_one_may_have_touched_the_disk_do_not(scene: Scene, task_id: str) -> None:
    power_cut(scene, None)
    for _ in range(4):
        Agent(scene).hello()
        scene.clock.now_s += 61
    assert Agent(scene).try_hello(scene.mint()).status_code == 409
    failure = scene.task(task_id).failure
    assert failure is not None
    assert (failure.is_destroyed, scene.netboot()) == (True, "cloner")


def test_an_agent_that_leaves_without_a_word_about_its_end_is_not_running_for_ever(scene: Scene, task_id: str) -> None:
    """As when the failure could not be told for half an hour and the good-bye got through."""
    agent = Agent(scene)
    agent.hello()
    agent.told("rebooting", dict[str, bool])
    assert scene.task(task_id).state is TaskState.LOST
    Agent(scene).hello()
    assert scene.task(task_id).state is TaskState.RUNNING
    with scene.core.database.read() as connection:
        assert not housekeeping.is_due(connection, scene.clock.now_s, scene.core.rules, START_S - 1000)
