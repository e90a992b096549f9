"""`cloner capture`: what would be read is shown first, options are settled before anything is armed."""

from __future__ import annotations

import pytest

from clibench.desk import Desk
from cloner_core.errors import ExitStatus
from cloner_core.image.options import StoredOptions
from cloner_server.state import imageoptions, nodes
from serverbench.scene import facts

WORDS = ("capture", "--node", "n01", "--image", "caught", "--disklayout", "found")


@pytest.fixture
def known(desk: Desk) -> Desk:
    """A node whose disk is known, and an image that is captured without /srv."""
    desk.scene.add_node("n01")
    with desk.scene.core.database.write() as connection:
        act = desk.scene.core.act("test")
        nodes.remember_facts(connection, act, "n01", facts())
        imageoptions.keep(connection, act, "golden", StoredOptions("simple", ("/srv",)))
    return desk


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--image", "caught:3"), "want the name of an image"),
        (("--root-device", "sda1"), "--root-device sda1: want UUID=…"),
        (("--exclude-paths", "srv"), "'srv' is not a path from the root"),
        (("--node", "n07"), "n07"),
        (("--update",), "caught"),
    ],
)
def test_a_wrong_command_line_arms_nothing(known: Desk, words: tuple[str, ...], why: str) -> None:
    result = known.refused(*WORDS, *words)
    assert result.exit_code in (ExitStatus.USAGE, ExitStatus.NOT_FOUND)
    assert why in result.stderr


def test_a_dry_run_shows_what_would_be_read_and_changes_nothing(known: Desk) -> None:
    before = known.scene.state_dump()
    shown = known.run(*WORDS, "--dry-run", "--root-device", "UUID=aa-01").stdout
    assert "n01: capture at rest as image caught, the first of it; layout found" in shown
    assert "reads /dev/vda (VirtDisk serial D1, 8.0 GiB): nothing recognised on it" in shown
    assert "root: UUID=aa-01" in shown
    assert "writes to no disk" in shown
    assert known.scene.state_dump() == before


def test_it_is_armed_and_told_as_a_task(known: Desk) -> None:
    result = known.run(*WORDS, "--message", "at rest")
    assert "n01: task 1" in result.stdout
    assert known.scene.netboot() == "capture"
    told = known.run("task", "show", "1").stdout
    assert "capture" in told
    assert "caught, not yet" in told
    assert "capture caught" in known.run("task", "list").stdout


def test_a_no_on_a_terminal_arms_nothing(known: Desk) -> None:
    known.has_terminal = True
    assert known.refused(*WORDS, typed="n\n").exit_code == ExitStatus.REFUSED
    assert known.scene.netboot() == "local"


def test_other_options_than_those_kept_are_decided_before_it_is_armed(known: Desk) -> None:
    golden = ("capture", "--node", "n01", "--image", "golden", "--update", "--exclude-paths", "/data")
    refused = known.refused(*golden)
    assert "--exclude-paths: stored is /srv, given is nothing" in refused.stderr
    assert "after golden:1" in known.run(*golden, "--update-conflict", "commandline", "--dry-run").stdout
    kept = known.run(*golden, "--update-conflict", "server", "--dry-run")
    assert "leaves out /srv" in kept.stdout


def test_netboot_captures_a_node_as_its_own_image(known: Desk) -> None:
    known.run("netboot", "--nodes", "n01", "--set", "capture")
    assert "capture golden" in known.run("task", "list").stdout
