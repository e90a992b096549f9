"""Claims: one use, one hour, one machine; whatever comes beside is refused, and said aloud."""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from cloner_core.admin.deploying import DeployRequest
from cloner_core.admin.tasks import TaskState
from cloner_core.messages import Vaulted
from cloner_server.state import events
from cloner_server.state.tables import attempts
from cloner_server.tasks import arming, claims, housekeeping
from serverbench.scene import START_S, Agent, Scene, facts
from soak.laws import claim_race


@pytest.fixture
def task_id(scene: Scene) -> str:
    scene.add_node()
    return scene.arm()


def alarms(scene: Scene) -> list[str]:
    with scene.core.database.read() as connection:
        return [event.what for event in events.list_events(connection, alarms=True)]


def live_attempts(scene: Scene) -> int:
    with scene.core.database.read() as connection:
        return len(connection.execute(select(attempts).where(attempts.c.state == "live")).all())


def test_a_token_is_good_for_an_hour_and_no_longer(scene: Scene, task_id: str) -> None:
    early, late = scene.mint(), scene.mint()
    scene.clock.now_s += 3600
    assert Agent(scene).try_hello(late).status_code == 401
    scene.clock.now_s -= 1
    assert Agent(scene).try_hello(early).status_code == 200


@pytest.mark.parametrize("token", ["", "x", "0" * 40, "' OR 1=1 --", "\u0000"])
def test_a_guessed_token_is_nothing(scene: Scene, task_id: str, token: str) -> None:
    scene.mint()
    assert Agent(scene).try_hello(token).status_code == 401
    assert live_attempts(scene) == 0


def test_no_token_is_minted_without_a_task(scene: Scene) -> None:
    from cloner_core.errors import RefusedError

    scene.add_node()
    with pytest.raises(RefusedError):
        scene.mint()


def test_a_reply_lost_on_the_way_is_made_again_for_the_same_agent(scene: Scene, task_id: str) -> None:
    token, agent = scene.mint(), Agent(scene)
    first, second = agent.hello(token), agent.hello(token)
    assert second.task.attempt_id == first.task.attempt_id
    assert second.task.seed == first.task.seed
    agent.confirm_plan()
    agent.reply = first
    assert agent.post("identity").status_code == 401
    assert scene.task(task_id).attempts == 1


def test_a_used_token_in_another_hand_freezes_the_task(scene: Scene, task_id: str) -> None:
    token, agent = scene.mint(), Agent(scene)
    agent.hello(token)
    thief = Agent(scene)
    assert thief.try_hello(token).status_code == 409
    assert scene.task(task_id).state is TaskState.FROZEN
    assert "freeze" in alarms(scene)
    assert agent.beat().order == "hold"
    assert agent.post("identity").status_code == 409


def test_a_machine_without_the_nodes_mac_freezes_the_task(scene: Scene, task_id: str) -> None:
    stranger = Agent(scene, facts("52:54:00:00:00:99"))
    assert stranger.try_hello(scene.mint()).status_code == 409
    assert scene.task(task_id).state is TaskState.FROZEN


def test_other_hardware_with_the_right_mac_gets_no_secret(scene: Scene, task_id: str) -> None:
    agent = Agent(scene)
    agent.hello()
    agent.deploy()
    scene.admin("POST", f"/tasks/{task_id}/abort")
    task_id = scene.arm()
    spoofer = Agent(scene, facts(dmi="11111111-1111-4111-8111-111111111111"))
    assert spoofer.try_hello(scene.mint()).status_code == 409
    assert scene.task(task_id).state is TaskState.FROZEN
    assert scene.admin("PATCH", "/nodes/n01", {"fingerprint": ""}).status_code == 200
    assert scene.admin("POST", f"/tasks/{task_id}/retry").status_code == 200
    spoofer.hello()
    spoofer.confirm_plan()
    spoofer.told("identity", Vaulted)


def test_a_machine_reset_while_its_attempt_lives_waits_until_that_is_lost(scene: Scene, task_id: str) -> None:
    before = Agent(scene)
    before.hello()
    before.beat()
    scene.clock.now_s += 3  # no firmware is back at the network in less
    after, token = Agent(scene), scene.mint()
    answer = after.try_hello(token)
    assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
    scene.clock.now_s += 61
    after.hello(token)
    assert scene.task(task_id).attempts == 2
    assert before.post("beat").status_code in (400, 401)
    assert before.get("/segments/" + "0" * 64).status_code == 401
    assert alarms(scene) == []


def test_two_machines_of_one_hardware_are_found_by_the_beat_that_goes_on(scene: Scene, task_id: str) -> None:
    first, second = Agent(scene), Agent(scene)
    first.hello()
    assert second.try_hello(scene.mint()).status_code == 503
    assert first.beat().order == "hold"
    assert scene.task(task_id).state is TaskState.FROZEN
    assert second.try_hello(scene.task(task_id).id).status_code == 401


def test_a_script_fetched_between_two_beats_is_an_alarm_and_stops_nothing(scene: Scene, task_id: str) -> None:
    agent = Agent(scene)
    agent.hello()
    for _ in range(10):
        agent.beat()
        scene.clock.now_s += 2
        scene.mint()
    assert alarms(scene) == ["boot script fetched while the attempt beats"], "not one for each request"
    scene.clock.now_s += 60
    agent.beat()
    scene.mint()
    assert len(alarms(scene)) == 2
    agent.deploy()
    assert scene.task(task_id).state is TaskState.UNCONFIRMED


def rule(scene: Scene, **changes: Any) -> None:
    """Go on with other times, as after a restart, or as when other nodes have come or gone."""
    scene.core = dataclasses.replace(scene.core, rules=dataclasses.replace(scene.core.rules, **changes))
    scene.__dict__.pop("agents", None)


@pytest.mark.parametrize(
    ("told_s", "now_s", "since_s", "seen"),
    [(8.0, 2.0, 9.0, ["boot script fetched while the attempt beats"]), (2.0, 8.0, 3.0, [])],
    ids=["more nodes then", "more nodes now"],
)
def test_a_live_attempt_is_known_by_the_beat_that_it_was_told(
    scene: Scene, task_id: str, told_s: float, now_s: float, since_s: float, seen: list[str]
) -> None:
    rule(scene, beat_every_s=told_s)
    assert Agent(scene).hello().beat_every_s == told_s
    rule(scene, beat_every_s=now_s)
    scene.clock.now_s += since_s
    scene.mint()
    assert alarms(scene) == seen


def test_an_attempt_is_not_lost_between_two_beats_that_it_was_told(scene: Scene, task_id: str) -> None:
    rule(scene, beat_every_s=10.0)
    Agent(scene).hello()
    rule(scene, beat_every_s=1.0, lost_s=5.0)
    for waited_s, state in ((29, TaskState.RUNNING), (1, TaskState.LOST)):
        scene.clock.now_s += waited_s
        with scene.core.database.write() as connection:
            housekeeping.tidy(connection, scene.core.act("server"), scene.core.rules, START_S)
        assert scene.task(task_id).state is state
        assert Agent(scene).try_hello(scene.mint()).status_code == (503 if state is TaskState.RUNNING else 200)


def test_after_five_lost_attempts_the_task_fails(scene: Scene, task_id: str) -> None:
    for _ in range(5):
        Agent(scene).hello()
        scene.clock.now_s += 61
    assert Agent(scene).try_hello(scene.mint()).status_code == 409
    assert scene.task(task_id).state is TaskState.FAILED
    scene.admin("POST", f"/tasks/{task_id}/retry")
    Agent(scene).hello()


def test_lost_comes_and_goes_with_the_beat(scene: Scene, task_id: str) -> None:
    agent = Agent(scene)
    agent.hello()
    scene.clock.now_s += 61

    def tidy(started_s: float) -> None:
        with scene.core.database.write() as connection:
            housekeeping.tidy(connection, scene.core.act("server"), scene.core.rules, started_s)

    tidy(scene.clock.now_s - 10)
    assert scene.task(task_id).state is TaskState.RUNNING, "the server was away itself"
    tidy(START_S)
    assert scene.task(task_id).state is TaskState.LOST
    agent.beat()
    assert scene.task(task_id).state is TaskState.RUNNING


def test_of_hellos_at_once_one_becomes_an_attempt(scene: Scene, task_id: str) -> None:
    tokens = [scene.mint() for _ in range(4)]
    rivals = [Agent(scene) for _ in range(8)]
    answers: list[int] = []
    start = threading.Barrier(len(rivals))

    def rush(agent: Agent, token: str) -> None:
        start.wait()
        answers.append(agent.try_hello(token).status_code)

    threads = [threading.Thread(target=rush, args=(agent, tokens[n % 4])) for n, agent in enumerate(rivals)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers.count(200) == 1
    assert live_attempts(scene) == 1


def test_whatever_is_tried_nobody_gets_what_is_not_his(tmp_path: Path) -> None:
    """At length: `./run soak claim-race`."""
    with claim_race.LAW.open(tmp_path) as case:
        seen: Counter[str] = Counter()
        for seed in range(1, 6):
            seen.update({name: int(value) for name, value in case(seed).items()})
    assert min(seen[name] for name in ("hello 200", "foreign", "identity 200", "identity 409", "rush", "steal")) > 0


def test_open_claims_do_not_pile_up(scene: Scene, task_id: str) -> None:
    for _ in range(60):
        scene.mint()
    with scene.core.database.read() as connection:
        assert claims.count_open(connection, int(task_id)) <= 20
    newest = scene.mint()
    assert Agent(scene).try_hello(newest).status_code == 200


def test_the_more_nodes_are_cloned_at_once_the_slower_each_beats_and_none_is_lost_for_it(scene: Scene) -> None:
    scene.add_node()
    scene.arm(has_identity=False)
    agent = Agent(scene)
    assert agent.hello().beat_every_s == scene.core.rules.beat_every_s
    many = [f"m{number:03d}" for number in range(120)]
    for number, name in enumerate(many):
        scene.add_node(name, f"52:54:77:00:{number >> 8:02x}:{number & 255:02x}")
    with scene.core.database.write() as connection:
        request, act = DeployRequest(nodes=tuple(many), limit=120), scene.core.act("test")
        arming.arm(connection, act, arming.intend(connection, request, scene.core.rules), scene.core.rules)
        interval_s = claims.beat_interval_s(connection, scene.core.rules)
    assert scene.core.rules.beat_every_s < interval_s <= scene.core.rules.lost_s / 6
    assert 121 / interval_s <= 41
