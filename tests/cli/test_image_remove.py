"""`cloner image-remove` shows, asks, and refuses what is in use."""

from __future__ import annotations

import pytest

from clibench.desk import Desk
from cloner_core.errors import ExitStatus
from cloner_server.state import images


@pytest.fixture
def desk(desk: Desk) -> Desk:
    """Return the desk with a second version, of the same tree."""
    store = desk.scene.core.catalog.store
    record = store.publish(desk.scene.image.draft)
    with desk.scene.core.database.write() as connection:
        images.add_version(connection, desk.scene.core.act("test"), "golden", record.number, record.version)
    return desk


def test_a_version_is_shown_asked_for_and_removed(desk: Desk) -> None:
    desk.scene.add_node()
    desk.has_terminal = True
    declined = desk.refused("image-remove", "--image", "golden:2", typed="n\n")
    assert "it is the newest; then that is golden:1, which n01 will get" in declined.stderr
    done = desk.run("image-remove", "--image", "golden:2", typed="y\n")
    assert done.stdout.startswith("removed golden:2; ")
    assert [view["number"] for view in desk.json("image-list")] == [1]


def test_off_a_terminal_it_wants_a_yes(desk: Desk) -> None:
    assert desk.refused("image-remove", "-i", "golden:1").exit_code == ExitStatus.REFUSED
    assert desk.json("image-remove", "-i", "golden:1", "--yes")["newest"] is None


def test_a_dry_run_removes_nothing(desk: Desk) -> None:
    before, stored = desk.scene.state_dump(), desk.stored()
    assert desk.run("image-remove", "-i", "golden:1", "--dry-run").stdout.startswith("would remove golden:1")
    assert (desk.scene.state_dump(), desk.stored()) == (before, stored)


def test_what_is_in_use_is_refused_and_every_user_named(desk: Desk) -> None:
    desk.scene.add_node("n01", version=1)
    desk.run("channel", "set", "-i", "golden", "-c", "prod", "--version", "1")
    desk.run("deploy", "-n", "n01", "--yes")
    result = desk.refused("image-remove", "-i", "golden:1", "--yes")
    assert result.exit_code == ExitStatus.REFUSED
    for user in ("channel golden:prod", "node n01", "task 1 on n01, which is queued"):
        assert user in result.stderr


@pytest.mark.parametrize(
    ("image", "status"), [("golden", 2), ("golden:prod", 2), ("golden:9", 3), ("nosuch:1", 3), ("golden:0", 2)]
)
def test_one_version_that_is_there_must_be_named(desk: Desk, image: str, status: int) -> None:
    assert desk.refused("image-remove", "-i", image, "--yes").exit_code == status
