"""Keep rules on a server: kept by compare-and-swap, applied to what nothing uses, and only when that was agreed to."""

from __future__ import annotations

import os
from typing import Any

import pytest

from cloner_server.state import images
from serverbench.scene import START_S, Scene
from store_images import BOOTABLE, make_image, some_contents

DAY_S = 86400.0


def publish(scene: Scene, count: int, every_s: float = DAY_S, name: str = "golden") -> None:
    """Publish versions one after the other, the clock going on, all of them older than any grace."""
    for _ in range(count):
        scene.clock.now_s += every_s
        seed = int(scene.clock.now_s)
        image = make_image(some_contents(seed) | BOOTABLE, name)
        image.put(scene.core.catalog.store)
        record = scene.core.catalog.store.publish(image.draft)
        with scene.core.database.write() as connection:
            images.add_version(connection, scene.core.act("test"), record.image, record.number, record.version)
    for path in (scene.core.state_directory / "store").rglob("*"):
        if path.is_file():
            os.utime(path, (1, 1))


def set_rule(scene: Scene, channel: str = "", status: int = 200, revision: int | None = None, **counts: int) -> Any:
    body = {"rule": counts} | ({} if revision is None else {"revision": revision})
    answer = scene.admin("PATCH", "/images/golden/keep-rule", body, channel=channel)
    assert answer.status_code == status, answer.text
    return answer.json()


def plan(scene: Scene) -> Any:
    answer = scene.admin("GET", "/store/plan-gc")
    assert answer.status_code == 200, answer.text
    return answer.json()


def let_go(scene: Scene) -> list[tuple[str, int]]:
    return [(fate["image"], fate["number"]) for fate in plan(scene)["versions"] if not fate["why"]]


def point(scene: Scene, version: int, name: str = "prod") -> None:
    assert scene.admin("PATCH", f"/images/golden/channels/{name}", {"version": version}).status_code == 200


def test_what_the_rules_let_go_is_planned_removed_and_collected(scene: Scene) -> None:
    publish(scene, 5)
    set_rule(scene, last=2)
    told = plan(scene)
    wanted = [("golden", number) for number in range(1, 5)]
    assert let_go(scene) == wanted
    assert told["images"] == [{"image": "golden", "versions": 4, "stored_bytes": told["images"][0]["stored_bytes"]}]
    assert told["now"]["stored_bytes"] > told["images"][0]["stored_bytes"] > told["unused"]["stored_bytes"] == 0
    assert scene.admin("POST", "/store/let-go", {"versions": wanted}).json() == [f"golden:{n}" for n in range(1, 5)]
    assert scene.admin("POST", "/store/gc").json() == told["now"]
    assert [view["number"] for view in scene.admin("GET", "/images").json()] == [5, 6]
    assert scene.core.catalog.store.check(read_data=True).faults == ()
    assert let_go(scene) == [], "once applied, the same rules let nothing more go"


def test_what_a_channel_a_node_or_a_task_uses_is_never_let_go(scene: Scene) -> None:
    publish(scene, 5)
    set_rule(scene, last=1)
    point(scene, 1)
    scene.add_node("n01", version=2)
    scene.add_node("n02", "52:54:00:00:00:02", version=3)
    task = scene.arm("n02", has_identity=False)
    scene.admin("PATCH", "/nodes/n02", {"version": None})
    why = {fate["number"]: fate["why"] for fate in plan(scene)["versions"]}
    assert why == {
        1: ["channel golden:prod"],
        2: ["node n01"],
        3: [f"task {task} on n02, which is queued"],
        4: [],
        5: [],
        6: ["last 1", "newest"],
    }


def test_a_version_that_came_into_use_after_it_was_shown_stays_and_so_do_the_others(scene: Scene) -> None:
    publish(scene, 3)
    set_rule(scene, last=1)
    wanted = let_go(scene)
    point(scene, 2)
    before = scene.state_dump()
    answer = scene.admin("POST", "/store/let-go", {"versions": wanted})
    assert answer.status_code == 409
    assert "golden:2" in answer.json()["error"]
    assert scene.state_dump() == before
    assert scene.admin("POST", "/store/let-go", {"versions": [("golden", 4)]}).status_code == 409, "the newest"
    assert scene.admin("POST", "/store/let-go", {"versions": [("nosuch", 1)]}).status_code == 409


def test_a_rule_of_a_channel_keeps_what_it_has_pointed_to(scene: Scene) -> None:
    publish(scene, 4)
    for version in (1, 2, 3):
        point(scene, version)
    set_rule(scene, "prod", last=2)
    assert let_go(scene) == [("golden", 1)], "4 was never prod: no rule speaks of it"
    set_rule(scene, last=1)
    assert let_go(scene) == [("golden", 1), ("golden", 4)]
    assert scene.admin("DELETE", "/images/golden/channels/prod").status_code == 200
    assert [view["channel"] for view in scene.admin("GET", "/keep-rules").json()] == [""]
    assert [number for _, number in let_go(scene)] == [1, 2, 3, 4]


def test_bytes_that_other_versions_need_are_not_counted_as_freed(scene: Scene) -> None:
    publish(scene, 1)
    store = scene.core.catalog.store
    for _ in range(2):  # the very tree of the first version, twice more
        record = store.publish(scene.image.draft)
        with scene.core.database.write() as connection:
            images.add_version(connection, scene.core.act("test"), "golden", record.number, record.version)
    set_rule(scene, last=1)
    told = plan(scene)
    second = sum(store.freed({("golden", 2)})[0].values())
    assert told["images"][0]["stored_bytes"] == second > 0


def test_a_rule_is_changed_by_compare_and_swap_and_each_change_is_an_event(scene: Scene) -> None:
    assert set_rule(scene, last=5, revision=0)["revision"] == 1
    assert set_rule(scene, last=5)["revision"] == 1, "what is so already changes nothing"
    set_rule(scene, status=409, last=6, revision=0)
    assert set_rule(scene, monthly=12, revision=1)["rule"]["last"] == 0, "it takes the place of the former one"
    assert scene.admin("DELETE", "/images/golden/keep-rule", revision=1).status_code == 409
    assert scene.admin("DELETE", "/images/golden/keep-rule", revision=2).json()["rule"]["monthly"] == 12
    assert set_rule(scene, last=1, revision=0)["revision"] == 4, "an old revision never comes back"
    told = list(scene.admin("GET", "/events", subject="image/golden").json())
    assert [(one["what"], one["detail"]["rule"]) for one in told] == [
        ("keep rule set", "last 5"),
        ("keep rule set", "monthly 12"),
        ("keep rule removed", ""),
        ("keep rule set", "last 1"),
    ]


@pytest.mark.parametrize(
    ("counts", "channel", "status"), [({}, "", 400), ({"last": -1}, "", 400), ({"last": 1}, "nosuch", 404)]
)
def test_a_rule_that_cannot_be_is_refused(scene: Scene, counts: dict[str, int], channel: str, status: int) -> None:
    before = scene.state_dump()
    set_rule(scene, channel, status, **counts)
    assert scene.admin("PATCH", "/images/nosuch/keep-rule", {"rule": {"last": 1}}).status_code == 404
    assert scene.admin("DELETE", "/images/golden/keep-rule").status_code == 404
    assert scene.state_dump() == before


def test_a_dry_run_changes_nothing(scene: Scene) -> None:
    set_rule(scene, last=1)
    before = scene.state_dump()
    scene.admin("PATCH", "/images/golden/keep-rule", {"rule": {"last": 2}}, dry_run="true")
    scene.admin("DELETE", "/images/golden/keep-rule", dry_run="true")
    plan(scene)
    assert scene.state_dump() == before


def test_the_age_of_a_version_is_when_it_was_published(scene: Scene) -> None:
    publish(scene, 6, every_s=20 * DAY_S)
    assert scene.clock.now_s > START_S + 100 * DAY_S
    set_rule(scene, monthly=2)
    kept = [fate["number"] for fate in plan(scene)["versions"] if fate["why"]]
    assert 7 in kept
    assert len(kept) == 2
