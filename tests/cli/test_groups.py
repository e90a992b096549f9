"""Groups: who is in them, what @group means in a node set, and what a protected group refuses."""

from __future__ import annotations

import pytest

from clibench.desk import Desk
from cloner_core.errors import ExitStatus


@pytest.fixture
def rack(desk: Desk) -> Desk:
    """Six nodes: two racks, and GPUs in one machine of each."""
    for number in range(1, 7):
        groups = ("rack1" if number < 4 else "rack2", *(["gpu"] if number in (3, 4) else []))
        desk.scene.add_node(f"n{number:02d}", f"52:54:00:00:00:{number:02x}", groups=groups)
    desk.scene.add_node("head", "52:54:00:00:00:07")
    return desk


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("@rack1", "n01 n02 n03"),
        ("@rack[1-2]!@gpu", "n01 n02 n05 n06"),
        ("@rack1&@gpu", "n03"),
        ("@rack1^@gpu", "n01 n02 n04"),
        ("head,@gpu", "head n03 n04"),
        ("@*", "head n01 n02 n03 n04 n05 n06"),
        ("n0[1-2]", "n01 n02"),
        ("n*", "n01 n02 n03 n04 n05 n06"),
        ("hea?", "head"),
    ],
)
def test_a_node_set_takes_the_groups_of_the_server(rack: Desk, text: str, named: str) -> None:
    assert [view["name"] for view in rack.json("node", "list", "--nodes", text)] == named.split()


@pytest.mark.parametrize(
    ("text", "status", "told"),
    [
        ("@nosuch", ExitStatus.NOT_FOUND, ["no such group: nosuch", "cloner group list"]),
        ("@nosuch,n01,@nosuch", ExitStatus.NOT_FOUND, ["no such group: nosuch"]),
        ("@rack1&@rack2", ExitStatus.USAGE, ["'@rack1&@rack2': names no node"]),
        ("x*", ExitStatus.USAGE, ["'x*': names no node"]),
        ("@slurm:rack1", ExitStatus.USAGE, ["slurm", "@GROUP"]),
        ("@rack1,n[01", ExitStatus.USAGE, ["n[01"]),
        ("@nosuch,n77", ExitStatus.NOT_FOUND, ["no such group: nosuch", "no such node: n77"]),
    ],
)
def test_a_node_set_that_names_nobody_is_refused(rack: Desk, text: str, status: ExitStatus, told: list[str]) -> None:
    for words in (["deploy", "--nodes", text], ["node", "remove", text], ["netboot", "-n", text, "--set", "local"]):
        result = rack.refused(*words, "--yes")
        assert result.exit_code == status, result.stderr
        assert [word for word in told if word not in result.stderr] == []


def test_faults_of_the_line_come_before_an_absent_server_with_groups_too(rack: Desk) -> None:
    rack.transport.is_away = True
    assert rack.refused("deploy", "--nodes", "@rack1,n[01").exit_code == ExitStatus.USAGE
    assert rack.refused("deploy", "--nodes", "@rack1").exit_code == ExitStatus.UNREACHABLE


def test_groups_are_given_added_and_taken(desk: Desk) -> None:
    view = desk.json("node", "add", "n01", "--mac", "525400000001", "--groups", "rack1,gpu,rack1")
    assert view["groups"] == ["gpu", "rack1"]
    desk.scene.add_node("n02", "52:54:00:00:00:02")
    changed = desk.json("node", "set", "n[01-02]", "--add-group", "hot", "--remove-group", "gpu")
    assert [view["groups"] for view in changed] == [["hot", "rack1"], ["hot"]]
    assert desk.json("node", "set", "@hot", "--groups", "cold")[1]["groups"] == ["cold"]
    assert desk.json("node", "set", "n01", "--groups", "")[0]["groups"] == []
    assert [view["name"] for view in desk.json("group", "list")] == ["cold"]
    assert desk.json("group", "show", "cold")["nodes"] == ["n02"]


def test_a_change_of_groups_names_the_revision_it_was_made_from(rack: Desk) -> None:
    result = rack.refused("node", "set", "n01", "--add-group", "hot", "--revision", "7")
    assert result.exit_code == ExitStatus.CONFLICT


def test_bad_names_of_groups_are_all_told(desk: Desk) -> None:
    result = desk.refused("node", "add", "n01", "--mac", "525400000001", "--groups", "a b,c:d,@e,ok")
    assert result.exit_code == ExitStatus.USAGE
    assert [word for word in ("'a b'", "'c:d'", "'@e'") if word not in result.stderr] == []
    assert "'ok'" not in result.stderr


def test_all_groups_and_some_groups_exclude_each_other(rack: Desk) -> None:
    result = rack.refused("node", "set", "n01", "--groups", "a", "--add-group", "b")
    assert result.exit_code == ExitStatus.USAGE


def test_a_protected_group_refuses_all_that_destroys(rack: Desk) -> None:
    failed = rack.scene.arm("n04")
    rack.run("task", "abort", failed, "--yes")
    assert rack.json("group", "protect", "gpu")["is_protected"]
    for words in (
        ["deploy", "--nodes", "@rack2", "--yes"],
        ["netboot", "--nodes", "n04", "--set", "cloner", "--yes"],
        ["node", "remove", "n[04-05]", "--yes"],
        ["task", "retry", failed, "--yes"],
    ):
        result = rack.refused(*words)
        assert result.exit_code == ExitStatus.REFUSED, words
        assert "n04 is in the protected group 'gpu'" in result.stderr
        assert "cloner group unprotect gpu" in result.stderr
    assert "by group gpu" in rack.run("node", "show", "n04").stdout
    assert rack.run("netboot", "--nodes", "n04", "--set", "local").exit_code == 0
    assert rack.run("deploy", "--nodes", "n[05-06]", "--yes").exit_code == 0


def test_protection_is_taken_away_and_a_nodes_own_stays(rack: Desk) -> None:
    rack.json("group", "protect", "gpu")
    rack.json("node", "set", "n03", "--protected")
    rack.json("group", "unprotect", "gpu")
    told = rack.refused("deploy", "--nodes", "@gpu", "--yes").stderr
    assert "n03 is protected" in told
    assert "n04" not in told
    assert rack.run("deploy", "--nodes", "n04", "--yes").exit_code == 0


def test_a_group_that_is_protected_outlives_its_nodes(rack: Desk) -> None:
    rack.json("group", "protect", "gpu")
    rack.json("node", "set", "@gpu", "--remove-group", "gpu")
    assert rack.json("group", "show", "gpu") == {"name": "gpu", "revision": 1, "nodes": [], "is_protected": True}
    rack.json("node", "set", "n01", "--add-group", "gpu")
    assert rack.refused("deploy", "--nodes", "n01", "--yes").exit_code == ExitStatus.REFUSED


def test_a_group_nobody_is_in_cannot_be_protected(rack: Desk) -> None:
    assert rack.refused("group", "protect", "gpus").exit_code == ExitStatus.NOT_FOUND


def test_protecting_is_told_in_the_audit_once(rack: Desk) -> None:
    before = rack.scene.state_dump()
    assert rack.run("group", "protect", "gpu", "--dry-run").exit_code == 0
    assert rack.scene.state_dump() == before
    for _ in range(2):
        rack.json("group", "protect", "gpu")
    told = rack.json("events", "--object", "group/gpu")
    assert [(event["what"], event["author"]) for event in told] == [("protected", "tester")]
