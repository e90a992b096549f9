"""Bundles: from the attempt that failed only, of bounded size, without secrets, found again by the task."""

from __future__ import annotations

import msgspec
import pytest

from cloner_core.bundle import MAX_BUNDLE_BYTES, Bundle, BundleView, Part
from cloner_core.messages import Cause, Failure, Granted, Stage
from cloner_server.state import bundles, events, tables
from serverbench.scene import Agent, Scene

FAILURE = Failure(stage=Stage.MKFS, cause=Cause.TOOL, message="mkfs failed", hint="look", is_destroyed=True)
CANARY = "CANARY5f0c1d2e"


@pytest.fixture
def agent(scene: Scene) -> Agent:
    scene.add_node()
    scene.arm(has_identity=False)
    agent = Agent(scene)
    agent.hello()
    return agent


def make(text: str = "six lines") -> Bundle:
    return Bundle(FAILURE, "1", 5.0, (Part("log", text), Part("command-line", f"cloner.claim={CANARY}")))


def shown(scene: Scene) -> BundleView:
    answer = scene.admin("GET", "/tasks/1/bundle")
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content, type=BundleView)


def test_a_bundle_is_kept_with_its_task_and_without_secrets(scene: Scene, agent: Agent) -> None:
    agent.fail(FAILURE)
    agent.told("bundle", Granted, make())
    view = shown(scene)
    assert agent.reply is not None
    assert (view.task, view.attempt) == ("1", agent.reply.task.attempt_id)
    assert {part.name: part.text for part in view.bundle.parts} == {
        "log": "six lines",
        "command-line": "cloner.claim=***",
    }
    assert CANARY not in repr(scene.state_dump())
    with scene.core.database.read() as connection:
        assert "bundle kept" in [event.what for event in events.list_events(connection, obj="task/1")]


def test_the_first_bundle_of_an_attempt_stays(scene: Scene, agent: Agent) -> None:
    agent.fail(FAILURE)
    agent.told("bundle", Granted, make("first"))
    before = scene.state_dump()
    agent.told("bundle", Granted, make("second"))
    assert scene.state_dump() == before


def test_a_bundle_after_an_early_failure_is_taken_too(scene: Scene, agent: Agent) -> None:
    agent.fail(msgspec.structs.replace(FAILURE, stage=Stage.PLAN, is_destroyed=False))
    agent.told("bundle", Granted, make())
    assert shown(scene).bundle.failure == FAILURE


def test_an_attempt_at_work_has_no_bundle(scene: Scene, agent: Agent) -> None:
    assert agent.post("bundle", make()).status_code == 409
    assert scene.admin("GET", "/tasks/1/bundle").status_code == 404


def test_a_bundle_wants_credential_and_proof(scene: Scene, agent: Agent) -> None:
    agent.fail(FAILURE)
    assert agent.post("bundle", make(), **{"Cloner-Proof": "00" * 64}).status_code == 401
    assert agent.post("bundle", make(), Authorization="Bearer guess").status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        {},
        msgspec.to_builtins(make()) | {"more": 1},
        msgspec.to_builtins(make()) | {"parts": [{"name": "../../etc", "text": ""}]},
        msgspec.to_builtins(make()) | {"parts": [{"name": "log", "text": ""}] * 65},
        msgspec.to_builtins(make("x" * (MAX_BUNDLE_BYTES + 1))),
    ],
    ids=["empty", "unknown field", "name", "too many parts", "too long"],
)
def test_a_bundle_that_is_wrong_in_itself_is_refused(scene: Scene, agent: Agent, body: object) -> None:
    agent.fail(FAILURE)
    before = scene.state_dump()
    assert agent.post("bundle", body).status_code == 400
    assert scene.state_dump() == before


def test_the_oldest_bundles_are_forgotten(scene: Scene, agent: Agent) -> None:
    with scene.core.database.write() as connection:
        for number in range(5):
            scene.clock.now_s += 1
            bundles.keep_bundle(connection, scene.core.act("t"), 1, f"a{number}", make(str(number)), most=3)
        kept = {row.attempt for row in connection.execute(tables.bundles.select())}
    assert kept == {"a2", "a3", "a4"}
    assert shown(scene).attempt == "a4"
