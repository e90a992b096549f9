"""What a credential was granted is believed for a second: never another version, never longer."""

from __future__ import annotations

import dataclasses

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
