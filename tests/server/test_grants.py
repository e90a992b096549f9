"""What a credential was granted is believed for a second: never another version, never longer."""

from __future__ import annotations

import asyncio
import dataclasses
import time

from cloner_core.errors import NotFoundError
from cloner_server.catalog import Version
from cloner_server.grants import BELIEVED_S, Grants
from serverbench.scene import Agent, Clock, Scene


def _pack_path(scene: Scene, agent: Agent) -> str:
    assert agent.reply is not None
    return f"/versions/{agent.reply.task.version.digest}/packs/{scene.image.packs[0].digest.hex()}"


def test_a_credential_that_was_revoked_gets_no_pack_a_second_later(scene: Scene) -> None:
    clock = Clock()
    scene.core = dataclasses.replace(scene.core, grants=Grants(clock))
    scene.add_node()
    task_id = scene.arm()
    agent = Agent(scene)
    agent.hello()
    path = _pack_path(scene, agent)
    assert agent.get(path).status_code == 200
    assert scene.admin("POST", f"/tasks/{task_id}/abort", {}).status_code < 300
    clock.now_s += BELIEVED_S
    assert agent.get(path).status_code in (401, 409)
    assert agent.get(path.replace("/packs/", "/placements/")).status_code in (401, 409)


def test_what_was_granted_opens_no_other_version_and_nobody_elses(scene: Scene) -> None:
    scene.add_node()
    scene.arm()
    agent = Agent(scene)
    agent.hello()
    path = _pack_path(scene, agent)
    assert agent.get(path).status_code == 200
    assert agent.reply is not None
    other = path.replace(agent.reply.task.version.digest, "ab" * 32)
    assert agent.get(other).status_code == 404
    assert Agent(scene).get(path).status_code == 401


def test_requests_that_come_together_are_one_question_and_a_refusal_is_asked_again(scene: Scene) -> None:
    scene.add_node()
    scene.arm()
    agent = Agent(scene)
    agent.hello()
    assert agent.reply is not None
    version = scene.core.catalog.find(agent.reply.task.version)
    answers: list[Version | NotFoundError] = [NotFoundError("not yet"), version]
    asked = []

    def ask() -> Version:
        asked.append(1)
        time.sleep(0.05)  # so that all have come
        answer = answers.pop(0)
        if isinstance(answer, NotFoundError):
            raise answer
        return answer

    async def crowd() -> list[Version | BaseException]:
        gone = asyncio.create_task(grants.version("one", version.digest.hex(), ask))
        await asyncio.sleep(0)
        others = [grants.version("one", version.digest.hex(), ask) for _ in range(8)]
        asyncio.get_running_loop().call_later(0.01, gone.cancel)
        return await asyncio.gather(*others, return_exceptions=True)

    grants = Grants()
    assert [type(answer) for answer in asyncio.run(crowd())] == [NotFoundError] * 8
    assert asyncio.run(crowd()) == [version] * 8
    assert len(asked) == 2
