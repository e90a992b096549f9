"""What time alone makes due: nodes that never boot the agent, attempts that fall silent (clones: test_confirming)."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
from sqlalchemy import update

from cloner_core.admin.tasks import TaskState
from cloner_core.messages import Cause, Failure, Stage
from cloner_core.sightings import BootStep
from cloner_server.state import events, nodes, sightings
from cloner_server.state.tables import tasks
from cloner_server.tasks import housekeeping
from serverbench.scene import START_S, Agent, Scene, facts

BOOT_S, LOST_S = 900.0, 60.0


@pytest.fixture
def task_id(scene: Scene) -> str:
    scene.add_node()
    return scene.arm()


def tidy(scene: Scene, started_s: float = START_S) -> None:
    """Do what is due, as the server does when it looks and sees that something is."""
    act = scene.core.act("server")
    with scene.core.database.read() as connection:
        is_due = housekeeping.is_due(connection, act.now_s, scene.core.rules, started_s)
    if is_due:
        with scene.core.database.write() as connection:
            housekeeping.tidy(connection, act, scene.core.rules, started_s)


def saw(scene: Scene, *steps: BootStep) -> None:
    with scene.core.database.write() as connection:
        for step in steps:
            sightings.record(connection, scene.core.act("boot"), "n01", step)


def failure(scene: Scene, task_id: str) -> Failure:
    told = scene.task(task_id).failure
    assert told is not None
    return told


def test_a_task_that_no_machine_asks_for_waits_for_ever(scene: Scene, task_id: str) -> None:
    scene.clock.now_s += 30 * 86_400
    tidy(scene)
    assert (scene.task(task_id).state, scene.netboot()) == (TaskState.QUEUED, "cloner")


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ((), "never asked for the kernel"),
        ((BootStep.KERNEL,), "never asked for the initramfs"),
        ((BootStep.KERNEL, BootStep.INITRAMFS), "the initramfs was the last thing"),
        ((BootStep.INITRAMFS, BootStep.DHCP_SYSTEM), "no agent said hello"),
    ],
    ids=["script", "kernel", "initramfs", "address"],
)
def test_a_node_whose_agent_never_comes_fails_and_is_told_by_the_last_step_it_reached(
    scene: Scene, task_id: str, steps: tuple[BootStep, ...], said: str
) -> None:
    saw(scene, *BootStep)  # of an earlier boot: says nothing of this one
    scene.clock.now_s += 100
    scene.mint()
    saw(scene, *steps)
    scene.clock.now_s += BOOT_S - 1
    tidy(scene)
    assert scene.task(task_id).state is TaskState.BOOTING
    scene.clock.now_s += 1
    tidy(scene)
    told = failure(scene, task_id)
    assert (told.stage, told.cause, told.is_destroyed) == (Stage.HELLO, Cause.BOOT, False)
    assert said in told.message
    assert told.hint
    assert (scene.task(task_id).state, scene.netboot()) == (TaskState.FAILED, "local")


def test_asking_again_and_again_does_not_put_the_deadline_off(scene: Scene, task_id: str) -> None:
    for _ in range(60):
        scene.mint()
        with scene.core.database.write() as connection:
            events.record(connection, scene.core.act("boot"), "node/n01", housekeeping.SCRIPT_SERVED)
        scene.clock.now_s += 15
    tidy(scene)
    assert "60 times" in failure(scene, task_id).message


def test_a_slow_machine_that_says_hello_after_all_is_deployed(scene: Scene, task_id: str) -> None:
    token = scene.mint()
    scene.clock.now_s += BOOT_S
    tidy(scene)
    assert scene.task(task_id).state is TaskState.FAILED
    agent = Agent(scene)
    agent.hello(token)
    assert (scene.task(task_id).state, scene.netboot()) == (TaskState.RUNNING, "cloner")
    assert scene.task(task_id).failure is None
    agent.deploy()
    assert (scene.task(task_id).state, scene.netboot()) == (TaskState.UNCONFIRMED, "local")


@pytest.mark.parametrize("why", ["protected", "another task", "another failure", "foreign"])
def test_a_late_machine_gets_nothing_that_was_not_meant_for_it(scene: Scene, task_id: str, why: str) -> None:
    token, agent = scene.mint(), Agent(scene, facts("52:54:00:00:00:99") if why == "foreign" else facts())
    if why == "another failure":
        agent.hello()
        early = Failure(Stage.PLAN, Cause.NO_DISK, "no disk", "add one", is_destroyed=False)
        agent.fail(early)
    else:
        scene.clock.now_s += BOOT_S
        tidy(scene)
    if why == "protected":
        assert scene.admin("PATCH", "/nodes/n01", {"is_protected": True}).status_code == 200
    if why == "another task":
        scene.admin("POST", f"/tasks/{scene.arm()}/abort")
    assert agent.try_hello(token).status_code == 409
    assert (scene.task(task_id).state, scene.netboot()) == (TaskState.FAILED, "local")
    with scene.core.database.read() as connection:
        alarms = [event.what for event in events.list_events(connection, alarms=True)]
    assert ("claim refused" in alarms) == (why == "foreign")


def test_a_node_that_was_sent_to_its_disk_meanwhile_is_not_deployed(scene: Scene, task_id: str) -> None:
    token = scene.mint()
    scene.clock.now_s += BOOT_S
    tidy(scene)
    wanted = {"nodes": ["n01"], "value": "local"}
    assert scene.admin("POST", "/netboot", wanted | {"dry_run": True}).status_code == 200
    assert scene.admin("POST", "/netboot", wanted).status_code == 200
    assert Agent(scene).try_hello(token).status_code in (401, 403)
    assert (scene.task(task_id).state, scene.netboot()) == (TaskState.FAILED, "local")


def test_a_disk_that_was_touched_before_is_not_booted_because_the_next_boot_fails(scene: Scene, task_id: str) -> None:
    agent = Agent(scene)
    agent.hello()
    agent.confirm_plan()
    agent.beat(Stage.RESTORE)
    agent.fail(Failure(Stage.RESTORE, Cause.DISK_IO, "bad", "replace", is_destroyed=True))
    assert scene.admin("POST", f"/tasks/{task_id}/retry").status_code == 200
    scene.mint()
    scene.clock.now_s += BOOT_S
    tidy(scene)
    assert (failure(scene, task_id).cause, failure(scene, task_id).is_destroyed) == (Cause.BOOT, True)
    assert scene.netboot() == "cloner"


@pytest.mark.parametrize(
    ("state", "limit_s"),
    [(TaskState.BOOTING, BOOT_S), (TaskState.RUNNING, LOST_S)],
)
def test_every_deadline_starts_anew_with_the_server(
    scene: Scene, task_id: str, state: TaskState, limit_s: float
) -> None:
    if state is TaskState.BOOTING:
        scene.mint()
    else:
        Agent(scene).hello()
    scene.clock.now_s += 10 * limit_s
    started_s = scene.clock.now_s
    scene.clock.now_s += limit_s - 1
    tidy(scene, started_s)
    assert scene.task(task_id).state is state, "while the server was away nobody could call"
    scene.clock.now_s += 1
    tidy(scene, started_s)
    assert scene.task(task_id).state is (TaskState.LOST if state is TaskState.RUNNING else TaskState.FAILED)


def test_a_sighting_outlives_no_node(scene: Scene, task_id: str) -> None:
    saw(scene, BootStep.KERNEL)
    scene.admin("POST", f"/tasks/{task_id}/abort")
    with scene.core.database.write() as connection:
        nodes.remove_node(connection, scene.core.act("test"), "n01")
        assert sightings.list_sightings(connection, "n01") == []


def test_what_is_kept_of_a_plan_is_all_that_a_receipt_repeats_of_it(scene: Scene, task_id: str) -> None:
    agent = Agent(scene)
    agent.hello()
    plan = agent.confirm_plan()
    with scene.core.database.read() as connection:
        from cloner_server.state import tasks as rows

        attempt = rows.last_attempt(connection, int(task_id))
    assert attempt is not None
    kept = msgspec.json.decode(attempt.planned)
    assert kept["disks"][0]["serial"] == "D1"
    assert kept["root_part_uuid"] == plan.root.part_uuid


@pytest.mark.parametrize("says_goodbye", [False, True])
def test_an_aborted_node_whose_agent_never_says_how_it_ended_gets_its_disk_back(
    scene: Scene, task_id: str, says_goodbye: bool
) -> None:
    agent = Agent(scene)
    agent.hello()
    assert scene.admin("POST", f"/tasks/{task_id}/abort").status_code == 200
    if says_goodbye:
        agent.told("rebooting", dict[str, bool])
    scene.clock.now_s += LOST_S - 1
    tidy(scene)
    assert scene.netboot() == "cloner", "it may still say so"
    scene.clock.now_s += 1
    tidy(scene)
    assert (scene.task(task_id).state, scene.netboot()) == (TaskState.ABORTED, "local")
    with scene.core.database.read() as connection:
        assert not housekeeping.is_due(connection, scene.clock.now_s, scene.core.rules, START_S)


def test_an_aborted_node_whose_silent_agent_was_told_to_go_ahead_waits(scene: Scene, task_id: str) -> None:
    agent = Agent(scene)
    agent.hello()
    agent.confirm_plan()
    assert scene.admin("POST", f"/tasks/{task_id}/abort").status_code == 200
    scene.clock.now_s += LOST_S
    tidy(scene)
    assert scene.netboot() == "cloner"
    with scene.core.database.read() as connection:
        assert not housekeeping.is_due(connection, scene.clock.now_s, scene.core.rules, START_S)
    assert agent.beat(Stage.PARTITION).order == "hold"
    scene.admin("POST", f"/tasks/{scene.arm()}/abort")
    assert scene.netboot() == "cloner"
    assert agent.beat(Stage.PARTITION).order == "retry"


@pytest.mark.parametrize("is_silent", [False, True], ids=["fails", "is silent"])
@pytest.mark.parametrize(
    ("session", "value"), [(0, "discover"), (0, "cloner-multicast"), (1, "discover"), (1, "cloner-multicast")]
)
def test_what_an_admin_sets_after_an_abort_outlives_the_end_of_the_agent(
    scene: Scene, task_id: str, session: int, value: str, is_silent: bool
) -> None:
    with scene.core.database.write() as connection:
        connection.execute(update(tasks).values(session=session))
    scene.core = dataclasses.replace(scene.core, rules=dataclasses.replace(scene.core.rules, has_agent=True))
    agent = Agent(scene)
    agent.hello()
    assert scene.admin("POST", f"/tasks/{task_id}/abort").status_code == 200
    assert scene.admin("POST", "/netboot", {"nodes": ["n01"], "value": value}).status_code == 200
    if is_silent:
        scene.clock.now_s += 3600
        tidy(scene)
    else:
        agent.fail(Failure(Stage.PLAN, Cause.ABORTED, "aborted", "", is_destroyed=False))
    assert scene.netboot() == value
