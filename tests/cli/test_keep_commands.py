"""`cloner image keep`, `store plan-gc`, `store gc --apply-keep-rules`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clibench.desk import Desk
from cloner_cli.store import growth_text, plan_text
from cloner_core.admin.images import Collected
from cloner_core.admin.keeping import Freed, GcPlan, VersionFate
from cloner_core.errors import ExitStatus
from cloner_core.growth import Growth
from cloner_server.state import images
from store_images import BOOTABLE, make_image, some_contents


@pytest.fixture
def desk(desk: Desk) -> Desk:
    """Return the desk with three versions, all of them older than the grace."""
    store = desk.scene.core.catalog.store
    for seed in (2, 3):
        image = make_image(some_contents(seed) | BOOTABLE)
        image.put(store)
        record = store.publish(image.draft)
        with desk.scene.core.database.write() as connection:
            images.add_version(connection, desk.scene.core.act("test"), "golden", record.number, record.version)
    for path in Path(desk.scene.core.state_directory, "store").rglob("*"):
        if path.is_file():
            os.utime(path, (1, 1))
    return desk


def test_a_rule_is_set_shown_and_removed(desk: Desk) -> None:
    assert desk.run("image", "keep", "-i", "golden", "--last", "5", "--monthly", "12").stdout == (
        "golden keeps last 5, monthly 12\n"
    )
    desk.run("channel", "set", "-i", "golden", "-c", "prod", "--version", "1")
    assert desk.run("image", "keep", "-i", "golden", "-c", "prod", "--weekly", "4", "--dry-run").stdout == (
        "golden:prod would keep weekly 4\n"
    )
    desk.run("image", "keep", "-i", "golden", "-c", "prod", "--weekly", "4")
    for words in ([], ["-i", "golden"]):
        assert [line.split("  ")[0] for line in desk.run("image", "keep", *words).stdout.splitlines()[1:]] == [
            "golden",
            "golden:prod",
        ]
    (of_channel,) = desk.json("image", "keep", "-i", "golden", "-c", "prod")
    assert (of_channel["channel"], of_channel["rule"]["weekly"]) == ("prod", 4)
    removed = desk.run("image", "keep", "-i", "golden", "--remove").stdout
    assert removed == "removed the rule of golden: last 5, monthly 12\n"


def test_the_rules_are_applied_after_a_yes_and_only_then(desk: Desk) -> None:
    desk.run("image", "keep", "-i", "golden", "--last", "1")
    planned = desk.run("store", "plan-gc").stdout
    assert planned.splitlines()[1].split() == ["golden:1", "LET", "GO", "-"]
    assert "newest" in planned.splitlines()[3]
    before, stored = desk.scene.state_dump(), desk.stored()
    dry = desk.run("store", "gc", "--apply-keep-rules", "--dry-run").stdout
    assert dry.startswith("would remove 2 versions, ")
    assert (desk.scene.state_dump(), desk.stored()) == (before, stored)
    assert desk.refused("store", "gc", "--apply-keep-rules").exit_code == ExitStatus.REFUSED
    desk.has_terminal = True
    assert desk.refused("store", "gc", "--apply-keep-rules", typed="n\n").exit_code == ExitStatus.REFUSED
    done = desk.run("store", "gc", "--apply-keep-rules", typed="y\n").stdout
    assert done == dry.replace("would remove", "removed")
    assert [view["number"] for view in desk.json("image-list")] == [3]
    assert desk.json("store", "gc", "--apply-keep-rules")["versions"] == []


def test_what_came_into_use_while_the_question_was_open_removes_nothing(desk: Desk) -> None:
    desk.run("image", "keep", "-i", "golden", "--last", "1")
    desk.has_terminal = True

    def point() -> None:
        desk.scene.admin("PATCH", "/images/golden/channels/prod", {"version": 2})

    desk.on_ask = point
    result = desk.run("store", "gc", "--apply-keep-rules", typed="y\n")
    assert result.exit_code == ExitStatus.CONFLICT
    assert "golden:2" in result.stderr
    assert len(desk.json("image-list")) == 3


WRONG = {
    "numbers and --remove": (("-i", "golden", "--last", "1", "--remove"), "one or the other", 2),
    "no image": (("--last", "1"), "--image says which", 2),
    "none of something": (("-i", "golden", "--last", "0"), "--last", 2),
    "unknown image": (("-i", "nosuch", "--last", "1"), "no such image: nosuch", 3),
    "unknown channel": (("-i", "golden", "-c", "prod", "--last", "1"), "no such channel: golden:prod", 3),
    "nothing to remove": (("-i", "golden", "--remove"), "no keep rule", 3),
    "an older revision": (("-i", "golden", "--last", "1", "--revision", "3"), "revision 0, wanted 3", 5),
}


@pytest.mark.parametrize(("words", "said", "status"), WRONG.values(), ids=list(WRONG))
def test_a_wrong_command_line_says_what_is_wrong(desk: Desk, words: tuple[str, ...], said: str, status: int) -> None:
    result = desk.refused("image", "keep", *words)
    assert said in result.stderr
    assert result.exit_code == status


def test_a_plan_tells_what_is_freed_by_image_and_what_several_share() -> None:
    plan = GcPlan(
        versions=(VersionFate("a", 1, ()), VersionFate("a", 2, ("last 1", "newest"))),
        images=(Freed("a", 1, 3 << 30),),
        shared_bytes=1 << 20,
        now=Collected(7, 4 << 30),
        unused=Collected(1, 1 << 20),
        growth=Growth(10 << 30, 20.4, "", 0.0, 1.0, 5 << 30),
    )
    text = plan_text(plan)
    for said in (
        "a 3.0 GiB of 1 versions",
        "shared by several 1.0 MiB",
        "4.0 GiB, 1.0 MiB of it unused",
        "20 days: grew 5.0",
    ):
        assert said in text


def test_growth_that_is_not_known_says_so_with_its_figures() -> None:
    assert growth_text(Growth(1 << 30, None, "not known: x", None)) == "not known: x; 1.0 GiB left"
    shrunk = growth_text(Growth(1 << 30, None, "never, as it is: y", 0.0, 1.0, -(1 << 20)))
    assert shrunk.startswith("never, as it is: y; grew -1.0 MiB since ")
