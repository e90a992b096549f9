"""Channels: where they point, who follows them, and that nobody's change of one is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloner_server.export import importing, making
from cloner_server.export.importing import import_state
from cloner_server.export.making import export_state
from cloner_server.export.sealing import Cost
from cloner_server.state import images
from cloner_server.tasks.foreseen import task_to_come
from serverbench.scene import Agent, Scene, open_scene
from soak.laws import lost_updates
from store_images import BOOTABLE, make_image, some_contents


@pytest.fixture
def scene(scene: Scene) -> Scene:
    """Return the scene with a second version."""
    publish_again(scene)
    return scene


def publish_again(scene: Scene, seed: int = 2) -> None:
    image = make_image(some_contents(seed) | BOOTABLE)
    image.put(scene.core.catalog.store)
    record = scene.core.catalog.store.publish(image.draft)
    with scene.core.database.write() as connection:
        images.add_version(connection, scene.core.act("test"), record.image, record.number, record.version)


def point(scene: Scene, version: int | str, name: str = "prod", status: int = 200, **fields: Any) -> Any:
    answer = scene.admin("PATCH", f"/images/golden/channels/{name}", {"version": version} | fields)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_a_channel_is_usable_wherever_a_version_is(scene: Scene) -> None:
    point(scene, 1)
    scene.add_node()
    assert scene.admin("GET", "/images/golden", number="prod").json()["number"] == 1
    intents = scene.admin("POST", "/deploy", {"nodes": ["n01"], "image": "golden", "version": "prod", "dry_run": True})
    assert intents.json()[0]["version"] == 1
    assert scene.admin("GET", "/identity/n01", image="golden", version="prod").json()["version"] == 1
    assert scene.admin("GET", "/images/golden/scripts", version="prod").json()["version"] == 1
    view = scene.admin("PATCH", "/nodes/n01", {"version": "prod"}).json()
    assert (view["image"], view["version"]) == ("golden", "prod")
    with scene.core.database.read() as connection:
        for image in ("", "golden:prod"):
            told = task_to_come(scene.core, connection, "n01", image, "")
            assert told.version.number == 1
    assert (
        scene.admin("POST", "/fit", {"nodes": ["n01"], "image": "golden", "version": "prod"}).json()[0]["version"] == 1
    )


def test_a_node_that_follows_takes_what_the_channel_points_to_when_it_is_armed(scene: Scene) -> None:
    point(scene, 1)
    scene.add_node(version="prod")
    task = scene.arm()
    assert point(scene, 2)["nodes"] == ["n01"]
    agent = Agent(scene)
    assert agent.hello().task.version.number == 1, "a task keeps the version it was armed with"
    agent.deploy()
    assert (
        scene.admin("GET", f"/receipts/{task}").json()["receipt"]["body"]["version_digest"] == scene.task(task).digest
    )
    scene.admin("POST", f"/tasks/{task}/abort")
    assert scene.task(scene.arm()).version == 2


def test_a_node_is_set_from_a_channel_to_a_number_and_to_the_newest(scene: Scene) -> None:
    point(scene, 1)
    scene.add_node(version="prod")
    for version in (2, "prod", None, "prod"):
        assert scene.admin("PATCH", "/nodes/n01", {"version": version}).json()["version"] == version
    assert scene.admin("PATCH", "/nodes/n01", {"version": "nosuch"}).status_code == 404


def test_a_channel_may_be_told_what_another_points_to(scene: Scene) -> None:
    point(scene, 2, "test")
    assert point(scene, "test")["version"] == 2
    point(scene, 1, "test")
    assert scene.admin("GET", "/images/golden", number="prod").json()["number"] == 2, "it does not follow it"


def test_each_change_is_an_event_with_its_author_and_changes_nothing_twice(scene: Scene) -> None:
    assert point(scene, 1)["revision"] == point(scene, 1)["revision"] == 1
    assert point(scene, 2)["revision"] == 2
    scene.admin("DELETE", "/images/golden/channels/prod")
    told = scene.admin("GET", "/events", subject="channel/golden:prod").json()
    assert [(one["what"], one["revision"], one["author"]) for one in told] == [
        ("set", 1, "root"),
        ("set", 2, "root"),
        ("removed", 3, "root"),
    ]
    assert told[1]["detail"] == {"version": 2, "before": 1}


def test_a_change_of_another_revision_is_refused_also_after_a_removal(scene: Scene) -> None:
    assert point(scene, 1, revision=0)["revision"] == 1
    point(scene, 2, revision=0, status=409)
    point(scene, 2, revision=7, status=409)
    assert scene.admin("DELETE", "/images/golden/channels/prod", revision=2).status_code == 409
    assert scene.admin("DELETE", "/images/golden/channels/prod", revision=1).status_code == 200
    point(scene, 2, revision=1, status=409)
    assert point(scene, 2, revision=0)["revision"] == 3, "an old revision never comes back"


def test_what_does_not_exist_is_not_found_and_what_cannot_be_a_name_is_refused(scene: Scene) -> None:
    point(scene, 3, status=404)
    point(scene, "nosuch", status=404)
    point(scene, 1, "3", status=400)
    point(scene, 1, "latest", status=400)
    assert scene.admin("PATCH", "/images/nosuch/channels/prod", {"version": 1}).status_code == 404
    assert scene.admin("DELETE", "/images/golden/channels/prod").status_code == 404
    assert scene.admin("GET", "/images/golden", number="prod").status_code == 404
    assert scene.admin("GET", "/channels", image="nosuch").status_code == 404


def test_a_channel_that_nodes_follow_is_not_removed(scene: Scene) -> None:
    point(scene, 1)
    scene.add_node(version="prod")
    answer = scene.admin("DELETE", "/images/golden/channels/prod")
    assert answer.status_code == 409
    assert "n01" in answer.json()["error"]
    scene.admin("PATCH", "/nodes/n01", {"version": 1})
    assert scene.admin("DELETE", "/images/golden/channels/prod").status_code == 200
    assert scene.admin("GET", "/channels").json() == []


def test_a_dry_run_changes_nothing(scene: Scene) -> None:
    point(scene, 1)
    before = scene.state_dump()
    scene.admin("PATCH", "/images/golden/channels/prod", {"version": 2}, dry_run="true")
    scene.admin("DELETE", "/images/golden/channels/prod", dry_run="true")
    assert scene.state_dump() == before


def test_channels_come_back_with_the_state(scene: Scene, tmp_path: Path) -> None:
    point(scene, 1)
    scene.add_node(version="prod")
    target = tmp_path / "cloner.state"
    wanted = making.Wanted(scene.core.state_directory, tmp_path / "none.toml", target, "tester", has_packs=True)
    export_state(wanted, b"correct horse battery", cost=Cost(4, 1, 1))
    import_state(
        importing.Wanted(target, tmp_path / "new", tmp_path / "etc" / "server.toml", "tester"), b"correct horse battery"
    )
    again = open_scene(tmp_path / "new")
    assert again.admin("GET", "/channels").json() == scene.admin("GET", "/channels").json()
    assert again.admin("GET", "/nodes/n01").json()["version"] == "prod"
    again.core.database.close()


def test_of_eight_writers_who_compare_and_swap_none_is_lost(scene: Scene) -> None:
    """At length: `./run soak lost-updates`."""
    figures = lost_updates.contend(scene, seed=1, changes=40)
    assert figures["granted"] == 40
