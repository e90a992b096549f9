"""Bad command lines against the real server: every fault at once, the documented status, nothing changed."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from clibench.desk import Desk
from cloner_cli.invocation import World
from cloner_cli.main import cli
from cloner_cli.reporting import report
from cloner_core.errors import ExitStatus, InvalidError

FIVE_MISTAKES = """
name: other
disks:
  - id: system
    partitions:
      - {role: esp, size: 512MiB, content: {type: filesystem, kind: ext4, mount: /boot/efi}}
      - {role: swap, size: 12 apples, content: {type: swap}}
      - {role: root, size: rest, content: {type: filesystem, kind: ext4, mount: /, colour: red}}
      - {role: rooot, size: 1GiB, content: {type: filesystem, kind: ext4, mount: /srv}}
"""
FIVE = ("name: the document says 'other'", "an esp is vfat", "12 apples", "colour", "'rooot'")

CASES = {
    "unknown node": (["deploy", "--nodes", "n01,n77"], ExitStatus.NOT_FOUND, ["no such node: n77"]),
    "unknown image": (
        ["deploy", "--nodes", "n01", "--image", "nosuch"],
        ExitStatus.NOT_FOUND,
        ["no such image: nosuch", "cloner image-list"],
    ),
    "unknown version": (["deploy", "-n", "n01", "-i", "golden:9"], ExitStatus.NOT_FOUND, ["golden:9"]),
    "malformed node set": (["deploy", "--nodes", "n[01"], ExitStatus.USAGE, ["node set 'n[01'"]),
    "empty node set": (["deploy", "--nodes", ""], ExitStatus.USAGE, ["no node is named"]),
    "a node set of a billion": (["deploy", "--nodes", "n[1-999999999]"], ExitStatus.USAGE, ["more than 65536"]),
    "a node set of a million, by two lists": (
        ["deploy", "-n", "n[1-1000]x[1-1000]"],
        ExitStatus.USAGE,
        ["more than 65536"],
    ),
    "terms that add up": (["deploy", "-n", "a[1-40000],b[1-40000]"], ExitStatus.USAGE, ["more than 65536"]),
    "ranges that add up": (["deploy", "-n", "a[1-40000,50001-90000]"], ExitStatus.USAGE, ["more than 65536"]),
    "a number of 5000 digits": (["deploy", "-n", f"n[1-{'9' * 5000}]"], ExitStatus.USAGE, ["more than 63 digits"]),
    "a name of 5000 digits": (["node", "remove", f"n{'9' * 5000}"], ExitStatus.USAGE, ["more than 63 digits"]),
    "everything at once": (
        ["deploy", "-n", "n[01", "-n", "n[77-78]", "-i", "nosuch", "-l", "nolay"],
        ExitStatus.USAGE,
        ["n[01", "no such node: n77, n78", "no such image: nosuch", "no such layout: nolay"],
    ),
    "two wrong options": (
        ["deploy", "-n", "n01", "--max", "many", "--timeout", "-1"],
        ExitStatus.USAGE,
        ["--max", "many", "--timeout"],
    ),
    "a missing option": (["netboot", "-n", "n01"], ExitStatus.USAGE, ["'--set'. Choose from: local, cloner,"]),
    "no number": (["store", "repack", "--below", "x"], ExitStatus.USAGE, ["--below", "'x' is not a number"]),
    "no whole number": (["events", "--limit", "x"], ExitStatus.USAGE, ["'x' is not a whole number"]),
    "no time": (["deploy", "-n", "n01", "--timeout", "x"], ExitStatus.USAGE, ["'x' is not a number"]),
    "unknown command": (["depoly"], ExitStatus.USAGE, ["depoly"]),
    "unknown option": (["deploy", "--nodse", "n01"], ExitStatus.USAGE, ["--nodse"]),
    "a node with five faults": (
        ["node", "add", "N_1", "--mac", "zz", "--mac", "52:54", "--address", "1.2.3.4", "--image", "nosuch"],
        ExitStatus.USAGE,
        ["'zz'", "'52:54'", "no such image: nosuch"],
    ),
    "a name that cannot be": (["node", "add", "N_1", "--mac", "525400000009"], ExitStatus.USAGE, ["N_1"]),
    "a node that exists": (["node", "add", "n01", "--mac", "525400000009"], ExitStatus.CONFLICT, ["exists already"]),
    "one address for two nodes": (
        ["node", "set", "n[01-02]", "--hostname", "a", "--mac", "525400000009"],
        ExitStatus.USAGE,
        ["--mac", "--hostname", "2 are named"],
    ),
    "an old revision": (
        ["node", "set", "n01", "--revision", "7", "--image", "golden"],
        ExitStatus.CONFLICT,
        ["revision 1, not 7"],
    ),
    "the revision before the first": (
        ["node", "set", "n01", "--revision", "0", "--image", "golden"],
        ExitStatus.CONFLICT,
        ["revision 1, not 0"],
    ),
    "revision 0 of two nodes": (
        ["node", "set", "n[01-02]", "--revision", "0", "--image", "golden"],
        ExitStatus.USAGE,
        ["--revision: for one node"],
    ),
    "a negative revision": (["node", "set", "n01", "--revision", "-1"], ExitStatus.USAGE, ["--revision"]),
    "an event that can never be": (["events", "--after", "9" * 26], ExitStatus.USAGE, ["--after"]),
    "a task that can never be": (["task", "show", "9" * 26], ExitStatus.NOT_FOUND, ["9999"]),
    "a layout that can never be": (["disklayout", "-l", f"simple:{'9' * 5000}"], ExitStatus.USAGE, ["not the number"]),
    "a time that is no number": (["deploy", "-n", "n01", "--timeout", "nan"], ExitStatus.USAGE, ["nan", "--timeout"]),
    "a wait that is no number": (["task", "wait", "1", "--timeout", "inf"], ExitStatus.USAGE, ["inf", "--timeout"]),
    "one unknown node of a set": (
        ["node", "set", "n[01-03]", "--image", "golden"],
        ExitStatus.NOT_FOUND,
        ["no such node: n03"],
    ),
    "removing an unknown node": (["node", "remove", "n[01-03]", "--yes"], ExitStatus.NOT_FOUND, ["n03"]),
    "a path for a name": (["node", "show", "../layouts"], ExitStatus.USAGE, ["../layouts"]),
    "nothing for a node": (["node", "show", ""], ExitStatus.USAGE, ["'NODE'", "'' is empty"]),
    "nothing for a captured node": (["capture", "--node", "", "-i", "golden"], ExitStatus.USAGE, ["'--node'", "''"]),
    "nothing for an image": (["image-verify", "-i", ""], ExitStatus.USAGE, ["'--image'", "'' is empty"]),
    "nothing for one of two images": (["image-diff", "golden", ""], ExitStatus.USAGE, ["IMAGE[:VERSION]", "''"]),
    "nothing for another image than the node's": (["deploy", "-n", "n01", "-i", ""], ExitStatus.USAGE, ["'--image'"]),
    "nothing for another layout than the node's": (["plan", "n01", "-l", ""], ExitStatus.USAGE, ["'--disklayout'"]),
    "nothing for the image of a session": (
        ["multicast-image", "-n", "n01", "-i", ""],
        ExitStatus.USAGE,
        ["'--image'", "'' is empty"],
    ),
    "nothing for a channel": (["image", "keep", "-i", "golden", "-c", ""], ExitStatus.USAGE, ["'--channel'", "''"]),
    "nothing for a group": (["group", "show", ""], ExitStatus.USAGE, ["'GROUP'", "'' is empty"]),
    "nothing for a session": (["multicast-stop", ""], ExitStatus.USAGE, ["'SESSION'", "'' is empty"]),
    "nothing for a task": (["task", "show", ""], ExitStatus.USAGE, ["'TASK'", "'' is empty"]),
    "two names that are empty": (
        ["channel", "remove", "-i", "", "-c", ""],
        ExitStatus.USAGE,
        ["2 faults", "--channel"],
    ),
    "an image of two versions": (["image-verify", "-i", "a:b:c"], ExitStatus.USAGE, ["image 'a:b:c'", "NAME:NUMBER"]),
    "an image to deploy of two versions": (["deploy", "-n", "n01", "-i", "a:b:c"], ExitStatus.USAGE, ["'a:b:c'"]),
    "a set for a node": (["node", "show", "n[01-02]"], ExitStatus.USAGE, ["'n[01-02]' is not the name of one node"]),
    "a bad bracket for a node": (["plan", "n[1"], ExitStatus.USAGE, ["'n[1' is not the name of one node"]),
    "a bad bracket for a captured node": (["capture", "--node", "n[1", "-i", "golden"], ExitStatus.USAGE, ["'n[1'"]),
    "a bad bracket for a node's tasks": (["task", "list", "--node", "n[1"], ExitStatus.USAGE, ["'--node'", "'n[1'"]),
    "a blank for a node": (["node", "facts", " "], ExitStatus.USAGE, ["' ' is not the name of one node"]),
    "unknown task": (["task", "abort", "99", "--yes"], ExitStatus.NOT_FOUND, ["'99'"]),
    "no task": (["task", "log", "what"], ExitStatus.NOT_FOUND, ["'what'"]),
    "no receipt": (["receipt", "show", "n01"], ExitStatus.NOT_FOUND, ["n01"]),
    "an unseen machine": (["plan", "n01"], ExitStatus.NOT_FOUND, ["never seen", "--facts"]),
    "a value not offered": (["netboot", "-n", "n01", "--set", "rescue"], ExitStatus.REFUSED, ["rescue"]),
    "no such file": (
        ["disklayout-upload", "-l", "x", "-f", "/nonexistent"],
        ExitStatus.USAGE,
        ["/nonexistent", "No such file"],
    ),
    "nothing for a path": (
        ["new-image", "--root", "", "-i", "x", "-l", "simple"],
        ExitStatus.USAGE,
        ["--root", "empty"],
    ),
    "an image to the standard output": (["image-export", "golden", "-"], ExitStatus.USAGE, ["'-'", "read back"]),
    "an installer's name": (["make-installer", "--name", "x y"], ExitStatus.USAGE, ["'x y' cannot name installers"]),
    "number of an unknown layout, and an image": (
        ["config", "-i", "nosuch", "-l", "simple:9"],
        ExitStatus.NOT_FOUND,
        ["no such image: nosuch", "no such layout: simple:9"],
    ),
    "a tree that is not there": (
        ["new-image", "--root", "/nonexistent", "--image", "a:b", "--disklayout", "nolay", "--exclude-paths", "x/../y"],
        ExitStatus.USAGE,
        ["/nonexistent", "a:b", "no such layout: nolay", "x/../y"],
    ),
}


@pytest.mark.parametrize(("words", "status", "told"), CASES.values(), ids=list(CASES))
def test_a_bad_command_line_names_its_faults_and_changes_nothing(
    desk: Desk, words: list[str], status: ExitStatus, told: list[str]
) -> None:
    desk.scene.add_node("n01")
    desk.scene.add_node("n02", "52:54:00:00:00:02")
    result = desk.refused(*words)
    assert result.exit_code == status, result.stderr
    assert [fragment for fragment in told if fragment not in result.stderr] == []


@pytest.mark.parametrize("command", ["disklayout-upload", "new-image"])
def test_a_layout_with_five_mistakes_is_told_all_five(desk: Desk, tmp_path: Path, command: str) -> None:
    path = tmp_path / "layout.yaml"
    path.write_text(FIVE_MISTAKES)
    words = ["disklayout-upload", "--disklayout", "simple", "--file", str(path)]
    if command == "new-image":
        words = ["new-image", "--root", str(tmp_path), "--image", "x", "-l", "simple", "--disklayout-file", str(path)]
    result = desk.refused(*words)
    assert result.exit_code == ExitStatus.USAGE
    assert [mistake for mistake in FIVE if mistake not in result.stderr] == []


def test_with_json_the_faults_are_one_line_of_json_on_stderr(desk: Desk) -> None:
    result = desk.refused("deploy", "-n", "n[01", "-i", "nosuch", "--json")
    told = json.loads(result.stderr)
    assert told["status"] == result.exit_code == ExitStatus.USAGE
    assert len(told["faults"]) == 2
    missing = json.loads(desk.refused("--json", "deploy", "-n", "n88", "-i", "nosuch").stderr)
    assert missing["faults"] == ["no such node: n88", "no such image: nosuch"]


def test_a_wrong_option_is_told_in_json_too(desk: Desk) -> None:
    told = json.loads(desk.refused("deploy", "--json", "--nodse", "x").stderr)
    assert told["status"] == ExitStatus.USAGE


def test_a_server_that_does_not_run_has_its_own_status(desk: Desk) -> None:
    desk.transport.is_away = True
    result = desk.refused("node", "list")
    assert result.exit_code == ExitStatus.UNREACHABLE
    assert "cloner serve" in result.stderr


def test_faults_of_the_line_itself_come_before_an_absent_server(desk: Desk) -> None:
    desk.transport.is_away = True
    result = desk.refused("deploy", "--nodes", "n[01")
    assert result.exit_code == ExitStatus.USAGE
    assert "n[01" in result.stderr


def test_a_protected_node_is_not_removed_and_neither_are_its_fellows(desk: Desk) -> None:
    desk.scene.add_node("n01")
    desk.scene.add_node("n02", "52:54:00:00:00:02", is_protected=True)
    result = desk.refused("node", "remove", "n[01-02]", "--yes")
    assert result.exit_code == ExitStatus.REFUSED
    assert "--no-protected" in result.stderr


def test_a_socket_that_is_for_root_alone_is_told_so_to_anybody_else(desk: Desk) -> None:
    desk.transport.is_forbidden = True
    result = desk.refused("node", "list")
    assert result.exit_code == ExitStatus.REFUSED
    assert "root" in result.stderr


@pytest.mark.parametrize("words", [[], ["node"], ["store"]])
def test_a_group_alone_shows_its_help(desk: Desk, words: list[str]) -> None:
    result = desk.refused(*words)
    assert result.exit_code == ExitStatus.USAGE
    assert result.stderr.startswith("Usage: cloner")


@pytest.mark.parametrize(
    "text", ["n[001-300],gpu[001-300]", "n[001-300]!n[001-299],x-1-999999", "n[1-99999/50000]", "n[9-1]"]
)
def test_a_node_set_counts_what_it_names(desk: Desk, text: str) -> None:
    result = desk.refused("node", "list", "-n", text)
    assert "more than" not in result.stderr
    assert result.exit_code == (ExitStatus.USAGE if text == "n[9-1]" else ExitStatus.NOT_FOUND), result.stderr


BYTE = "\udcff"  # what Python makes of the argument $'\\xff'


NOT_UTF8 = (
    ["node", "show", BYTE],
    ["node", "add", BYTE, "--mac", "525400000001"],
    ["events", "--object", BYTE],
    ["task", "list", "--node", BYTE],
    ["group", "protect", BYTE],
    ["console", BYTE],
    ["disklayout", "-l", BYTE],
    ["image-details", "-i", BYTE],
    ["state", "export", f"/tmp/{BYTE}"],
    ["new-image", "--root", "/nonexistent", "-i", "x", "-l", "simple", "--message", BYTE],
    ["new-image", "--root", "/nonexistent", "-i", "x", "-l", "simple", "--exclude-paths", f"/{BYTE}"],
    [BYTE],
)


@pytest.mark.parametrize("more", [[], ["--json"]], ids=["text", "json"])
def test_a_command_line_that_is_not_utf8_is_refused_before_anything(desk: Desk, more: list[str]) -> None:
    for words in NOT_UTF8:
        result = desk.refused(*words, *more)
        assert result.exit_code == ExitStatus.USAGE
        assert "not UTF-8" in result.stderr
        assert "\\xff" in result.stderr
    assert desk.transport.seen == []


def test_a_fault_about_bytes_that_are_not_utf8_is_told_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    report(InvalidError(f"{BYTE} is wrong", faults=[BYTE], hint=BYTE), is_json=True)
    assert json.loads(capsys.readouterr().err)["faults"] == ["\\udcff"]


def test_an_installer_is_not_promised_where_no_directory_can_be(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for words in (["--out", "file"], ["--out", "file/sub"], ["--out", "new", "--cache", "file"]):
        paths = [word if word.startswith("--") else str(tmp_path / word) for word in words]
        result = desk.refused("initramfs", "build", *paths, "--dry-run")
        assert (result.exit_code, "is no directory" in result.stderr) == (ExitStatus.USAGE, True)
    good = ["--out", str(tmp_path / "new" / "sub"), "--cache", str(tmp_path)]
    assert desk.run("initramfs", "build", *good, "--dry-run").exit_code == 0


@pytest.mark.parametrize(
    "words",
    [
        ["node", "import", "-"],
        ["confirm", "--console", "-"],
        ["disklayout-upload", "-l", "x", "--file", "-"],
        ["node", "remove", "n01"],
        ["deploy", "-n", "n01"],
        ["console", "password", "--site"],
        ["state", "import", "x", "--passphrase-file", "-", "--state", "/nonexistent"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_closed_standard_input_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    desk.scene.add_node("n01")
    before = desk.scene.state_dump()
    monkeypatch.setattr(sys, "stdin", None)  # what Python makes of `<&-`
    run = desk.invocation()
    run.world = dataclasses.replace(run.world, can_ask=World().can_ask)
    with pytest.raises(SystemExit) as ended:
        cli.main(words, obj=run)
    assert ended.value.code in (ExitStatus.USAGE, ExitStatus.REFUSED)
    assert desk.scene.state_dump() == before
