"""`cloner script`: what is put is what is printed, and every fault of a command line is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from clibench.desk import Desk

TEXT = "#!/bin/sh\necho hello\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "say hello.sh"
    path.write_text(TEXT)
    return path


def test_a_script_is_put_listed_printed_and_removed(desk: Desk, file: Path) -> None:
    image = ("--image", "golden", "--type", "post")
    made = desk.run("script", *image, "--set", str(file), "--order", "20", "--on-failure", "note")
    assert made.stdout == "scripts of golden:1 are set 1\n"
    assert desk.run("script", *image, "--get").stdout == TEXT
    listed = desk.run("script", "-i", "golden", "--list").stdout
    assert "golden: set 1, since" in listed
    assert "post  20     say-hello  note        600 s  21" in listed
    # What is not said stays.
    file.write_text(TEXT + "true\n")
    desk.run("script", *image, "--set", str(file), "--time-limit", "5")
    (one,) = desk.json("script", "-i", "golden", "--list")["scripts"]
    assert (one["order"], one["on_failure"], one["timeout_s"]) == (20, "note", 5)
    assert desk.run("script", *image, "--get", "--number", "1").stdout == TEXT
    assert desk.run("script", *image, "--set", str(file)).stdout == "scripts of golden are set 2 already\n"
    assert desk.run("script", *image, "--remove", "--name", "say-hello").stdout == "scripts of golden:1 are set 3\n"
    assert [view["number"] for view in desk.json("script", "-i", "golden", "--list", "--history")] == [3, 2, 1]


def test_a_dry_run_keeps_nothing(desk: Desk, file: Path) -> None:
    before = desk.scene.state_dump()
    told = desk.run("script", "-i", "golden", "-t", "pre", "--set", str(file), "--dry-run").stdout
    assert told == "scripts of golden:1 would be set 1\n"
    assert desk.scene.state_dump() == before


WRONG = {
    "nothing to do": (("-i", "golden", "-t", "pre"), "want one of --set FILE, --get, --list and --remove", 2),
    "two things": (("-i", "golden", "-t", "pre", "--get", "--list"), "want one of", 2),
    "no type": (("-i", "golden", "--get"), "want --type", 2),
    "nothing to remove": (("-i", "golden", "-t", "pre", "--remove"), "--remove wants --name", 2),
    "no such script": (("-i", "golden", "-t", "pre", "--get"), "has no pre-script", 3),
    "no such image": (("-i", "none", "--list"), "no such image", 3),
    "order without a script": (("-i", "golden", "--list", "--order", "3"), "go with --set", 2),
    "stdin without a name": (("-i", "golden", "-t", "post", "--set", "-"), "wants --name", 2),
}


@pytest.mark.parametrize(("words", "said", "status"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_command_line_says_what_is_wrong(desk: Desk, words: tuple[str, ...], said: str, status: int) -> None:
    result = desk.refused("script", *words, typed=TEXT)
    assert said in result.stderr
    assert result.exit_code == status


def test_a_binary_and_a_file_that_is_none_are_refused(desk: Desk, tmp_path: Path) -> None:
    binary = tmp_path / "program"
    binary.write_bytes(b"\x7fELF\xff\0")
    assert "is not UTF-8" in desk.refused("script", "-i", "golden", "-t", "post", "--set", str(binary)).stderr
    binary.write_bytes(b"\x7fELF\0\0")
    assert "is a binary" in desk.refused("script", "-i", "golden", "-t", "post", "--set", str(binary)).stderr


def test_a_deploy_says_which_scripts_run(desk: Desk, file: Path) -> None:
    desk.run("script", "-i", "golden", "-t", "post", "--set", str(file))
    desk.scene.add_node()
    assert "  scripts: set 1 of golden\n" in desk.run("deploy", "--nodes", "n01", "--dry-run").stdout
