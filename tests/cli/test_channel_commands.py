"""`cloner channel`, and `IMAGE:CHANNEL` wherever a command takes an image."""

from __future__ import annotations

import pytest

from clibench.desk import Desk

PROD = ("--image", "golden", "--channel", "prod")


def test_a_channel_is_set_listed_followed_and_removed(desk: Desk) -> None:
    desk.scene.add_node()
    assert desk.run("channel", "set", *PROD, "--version", "1").stdout == "golden:prod is golden:1\n"
    desk.run("node", "set", "n01", "--image", "golden:prod")
    assert desk.json("node", "show", "n01")["version"] == "prod"
    assert "golden:prod" in desk.run("node", "list").stdout
    listed = desk.run("channel", "list", "--image", "golden").stdout.splitlines()[1].split()
    assert (listed[0], listed[1], listed[-2:]) == ("golden:prod", "1", ["1", "n01"])
    assert "n01: golden:1 with layout simple:1" in desk.run("deploy", "-n", "n01", "--dry-run").stdout
    assert "n01: golden:1 with" in desk.run("deploy", "-n", "n01", "-i", "golden:prod", "--dry-run").stdout
    assert desk.json("image-details", "--image", "golden:prod")["number"] == 1
    assert desk.run("image-list").stdout.splitlines()[1].split()[:2] == ["golden:1", "prod"]
    assert "channels   prod\n" in desk.run("image-details", "--image", "golden").stdout
    assert desk.refused("channel", "remove", *PROD).exit_code == 4
    desk.run("node", "set", "n01", "--image", "golden")
    assert desk.run("channel", "remove", *PROD).stdout == "removed golden:prod, which was golden:1\n"


def test_a_deploy_by_channel_arms_the_version_that_was_shown(desk: Desk) -> None:
    desk.scene.add_node()
    desk.run("channel", "set", *PROD, "--version", "1")
    desk.run("deploy", "-n", "n01", "-i", "golden:prod", "--yes")
    (task,) = desk.json("task", "list")
    assert task["version"] == 1


def test_netboot_arms_what_the_channel_of_the_node_points_to(desk: Desk) -> None:
    desk.scene.add_node()
    desk.run("channel", "set", *PROD, "--version", "1")
    desk.run("node", "set", "n01", "--image", "golden:prod")
    assert "golden:1" in desk.run("netboot", "-n", "n01", "--set", "cloner", "--yes").stderr
    (task,) = desk.json("task", "list")
    assert task["version"] == 1


def test_a_dry_run_keeps_nothing(desk: Desk) -> None:
    before = desk.scene.state_dump()
    told = desk.run("channel", "set", *PROD, "--version", "1", "--dry-run").stdout
    assert told == "golden:prod would be golden:1\n"
    assert desk.scene.state_dump() == before


WRONG = {
    "a number for a name": (("set", "-i", "golden", "-c", "3", "--version", "1"), "cannot name a channel", 2),
    "a taken word": (("set", "-i", "golden", "-c", "latest", "--version", "1"), "newest version already", 2),
    "no version": (("set", *PROD, "--version", ""), "wants N|CHANNEL", 2),
    "what is no version": (("set", *PROD, "--version", "1st"), "neither the number", 2),
    "unknown version": (("set", *PROD, "--version", "9"), "golden:9", 3),
    "unknown channel as a version": (("set", *PROD, "--version", "test"), "no such channel: golden:test", 3),
    "unknown image": (("set", "-i", "nosuch", "-c", "prod", "--version", "1"), "no such image: nosuch", 3),
    "everything at once": (("set", "-i", "nosuch", "-c", "P", "--version", "0"), "no such image: nosuch", 2),
    "an older revision": (("set", *PROD, "--version", "1", "--revision", "4"), "does not exist, wanted revision 4", 5),
    "nothing to remove": (("remove", *PROD), "has no channel 'prod'", 3),
    "channels of no image": (("list", "-i", "nosuch"), "no such image: 'nosuch'", 3),
}


@pytest.mark.parametrize(("words", "said", "status"), WRONG.values(), ids=list(WRONG))
def test_a_wrong_command_line_says_what_is_wrong(desk: Desk, words: tuple[str, ...], said: str, status: int) -> None:
    result = desk.refused("channel", *words)
    assert said in result.stderr
    assert result.exit_code == status


def test_an_unknown_channel_of_a_deploy_is_told_with_every_other_fault(desk: Desk) -> None:
    result = desk.refused("deploy", "-n", "n88", "-i", "golden:prod", "-l", "nolay")
    assert result.exit_code == 3
    for said in ("no such node: n88", "no such channel: golden:prod", "no such layout: nolay"):
        assert said in result.stderr
