"""Importing nodes: all or none, the same file again changes nothing, every fault with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from clibench.desk import Desk
from cloner_core.errors import ExitStatus

FILES = Path(__file__).parent / "nodefiles"
OWN = str(FILES / "nodes.csv")


def saved(folder: Path, text: str) -> str:
    (folder / "nodes.csv").write_text(text)
    return str(folder / "nodes.csv")


def test_a_file_is_imported_and_importing_it_again_changes_nothing(desk: Desk) -> None:
    results = desk.json("node", "import", OWN)
    assert [(one["name"], one["action"]) for one in results] == [("n01", "added"), ("n02", "added"), ("n03", "added")]
    first = desk.json("node", "show", "n01")
    assert (first["image"], first["version"], first["layout"], first["groups"]) == (
        "golden",
        1,
        "simple",
        ["gpu", "rack1"],
    )
    assert first["network"]["hostname"] == "n01.example.org"
    assert first["network"]["interfaces"][0]["addresses"] == ["10.1.0.11/24"]
    assert desk.json("node", "show", "n02")["is_protected"]
    before = desk.scene.state_dump()
    for words in ([], ["--update"]):
        assert {one["action"] for one in desk.json("node", "import", OWN, *words)} == {"unchanged"}
    assert desk.scene.state_dump() == before


def test_a_list_with_serials_binds_its_nodes_to_their_machines(desk: Desk, tmp_path: Path) -> None:
    uuid = "4C4C4544-0034-4A10-8052-B7C04F4D3032"
    path = saved(tmp_path, f"name,mac,uuid,serial\nn01,525400000001,{uuid},7XJ4M02\nn02,525400000002,,\n")
    assert desk.run("node", "import", path).exit_code == 0
    view = desk.json("node", "show", "n01")
    assert (view["uuid"], view["serial"]) == (uuid.lower(), "7XJ4M02")
    assert {one["action"] for one in desk.json("node", "import", path)} == {"unchanged"}
    wrong = saved(tmp_path, "name,mac,uuid\nn03,525400000003,none\n")
    assert "line 2: n03: uuid" in desk.run("node", "import", wrong).stderr


def test_a_dry_run_shows_a_table_and_changes_nothing(desk: Desk) -> None:
    desk.scene.add_node("n03", "52:54:00:00:00:03")
    before = desk.scene.state_dump()
    shown = desk.run("node", "import", OWN, "--update", "--dry-run")
    assert shown.exit_code == 0
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert [line[:2] for line in lines[1:4]] == [["n01", "added"], ["n02", "added"], ["n03", "changed"]]
    assert lines[3][-1] == "network"
    assert shown.stdout.endswith("would be: 2 added, 1 changed, 0 unchanged\n")
    assert desk.scene.state_dump() == before


@pytest.mark.parametrize("name", ["lsdef.stanza", "fog-1.6.csv", "fog-1.5.csv"])
def test_the_files_of_others_become_nodes_with_image_and_layout_of_the_line(desk: Desk, name: str) -> None:
    words = ("node", "import", str(FILES / name), "--image", "golden", "--disklayout", "simple", "--groups", "new")
    told = desk.run(*words)
    assert told.exit_code == 0
    assert "note: " in told.stderr
    views = desk.json("node", "list", "--nodes", "@new")
    assert len(views) == (4 if name == "lsdef.stanza" else 2)
    assert {(view["image"], view["layout"], view["netboot"]) for view in views} == {("golden", "simple", "local")}
    assert {one["action"] for one in desk.json(*words)} == {"unchanged"}


def test_a_file_may_come_by_standard_input(desk: Desk) -> None:
    assert desk.run("node", "import", "-", typed="name,mac\nn01,525400000001\n").exit_code == 0
    assert [view["name"] for view in desk.json("node", "list")] == ["n01"]


def test_a_node_that_differs_is_refused_without_update_and_then_so_are_all(desk: Desk, tmp_path: Path) -> None:
    desk.scene.add_node("n02", "52:54:00:00:00:02", groups=("old",))
    result = desk.refused("node", "import", OWN)
    assert result.exit_code == ExitStatus.CONFLICT
    assert "line 4: n02: the node 'n02' exists and differs in: macs, groups, is_protected" in result.stderr
    assert "--update" in result.stderr


def test_an_update_changes_what_the_file_says_and_nothing_else(desk: Desk, tmp_path: Path) -> None:
    desk.json("node", "add", "n01", "--mac", "525400000001", "--address", "10.1.0.5/24", "--gateway", "10.1.0.1")
    desk.json("node", "set", "n01", "--image", "golden", "--groups", "old", "--kernel-argument", "quiet")
    path = saved(tmp_path, "name,mac,dns\nn01,525400000001,10.1.0.2\n")
    (changed,) = desk.json("node", "import", path, "--update", "--groups", "new", "--disklayout", "simple")
    assert sorted(changed["fields"]) == ["groups", "layout", "network"]
    view = desk.json("node", "show", "n01")
    interface = view["network"]["interfaces"][0]
    assert (interface["addresses"], interface["gateway"], interface["dns"]) == (
        ["10.1.0.5/24"],
        "10.1.0.1",
        ["10.1.0.2"],
    )
    assert (view["groups"], view["image"], view["layout"]) == (["new", "old"], "golden", "simple")


def test_two_nodes_may_swap_their_macs_and_their_networks_follow(desk: Desk, tmp_path: Path) -> None:
    for number in (1, 2):
        desk.json("node", "add", f"n0{number}", "--mac", f"52540000000{number}", "--address", f"10.1.0.{number}/24")
    desk.json("node", "import", saved(tmp_path, "name,mac\nn01,525400000002\nn02,525400000001\n"), "--update")
    for name, mac, address in (("n01", "02", "10.1.0.1/24"), ("n02", "01", "10.1.0.2/24")):
        view = desk.json("node", "show", name)
        interface = view["network"]["interfaces"][0]
        assert view["macs"] == [interface["mac"]] == [f"52:54:00:00:00:{mac}"]
        assert interface["addresses"] == [address]


def test_faults_of_the_server_are_all_told_with_their_lines(desk: Desk, tmp_path: Path) -> None:
    desk.scene.add_node("there", "52:54:00:00:00:09")
    path = saved(
        tmp_path,
        "name,mac,image,layout,groups,kernel_arguments,gateway,address\n"
        "n01,525400000001,golden:7,nolay,,,,\n"
        "N_2,525400000002,,,a:b,$(x),,\n"
        "n03,525400000009,,,,,,\n"
        "n04,525400000004,,,,,10.2.0.1,10.1.0.4/24\n",
    )
    early = desk.refused("node", "import", path)  # what can be told without the server's rules comes first
    assert early.exit_code == ExitStatus.USAGE
    assert "line 5: n04: interfaces[0].gateway: '10.2.0.1' is not in 10.1.0.0/24" in early.stderr
    Path(path).write_text(Path(path).read_text().replace("10.2.0.1", "10.1.0.1").replace("golden:7", "golden:0"))
    early = desk.refused("node", "import", path, "--image", "a:0")
    assert early.exit_code == ExitStatus.USAGE
    assert "line 2: n01: image 'golden:0': want NAME, NAME:NUMBER or NAME:CHANNEL" in early.stderr
    assert early.stderr.count("image 'a:0'") == 1, "an option is told once, not for each node"
    Path(path).write_text(Path(path).read_text().replace("golden:0", "golden:7"))
    result = desk.refused("node", "import", path)
    assert result.exit_code == ExitStatus.USAGE
    for word in (
        "line 2: n01: no such image: 'golden:7'",
        "no such layout: 'nolay'",
        "line 3: N_2: name: 'N_2' is not a host name",
        "line 3: N_2: groups: 'a:b' cannot name a group",
        "line 3: N_2: kernel_arguments: '$(x)' is not one plain word",
        "line 4: n03: 52:54:00:00:00:09 belongs to there",
    ):
        assert word in result.stderr, result.stderr


def test_a_mac_of_another_node_alone_is_a_conflict(desk: Desk, tmp_path: Path) -> None:
    desk.scene.add_node("there", "52:54:00:00:00:09")
    result = desk.refused("node", "import", saved(tmp_path, "name,mac\nn01,525400000001\nn03,525400000009\n"))
    assert result.exit_code == ExitStatus.CONFLICT
    assert "line 3: n03: 52:54:00:00:00:09 belongs to there" in result.stderr


def test_hundreds_of_nodes_are_imported_at_once(desk: Desk, tmp_path: Path) -> None:
    rows = "".join(f"n{number:04d},5254000{number:05x}\n" for number in range(300))
    assert len(desk.json("node", "import", saved(tmp_path, f"name,mac\n{rows}"))) == 300


@pytest.mark.parametrize("text", ["name,mac\nn01,zz\n", "what\n"])
def test_a_file_that_cannot_be_read_is_refused_before_the_server_is_asked(
    desk: Desk, tmp_path: Path, text: str
) -> None:
    desk.transport.is_away = True
    assert desk.refused("node", "import", saved(tmp_path, text)).exit_code == ExitStatus.USAGE


def test_a_file_that_is_not_there_is_named(desk: Desk) -> None:
    result = desk.refused("node", "import", "/nonexistent/nodes.csv")
    assert result.exit_code == ExitStatus.USAGE
    assert "/nonexistent/nodes.csv" in result.stderr
