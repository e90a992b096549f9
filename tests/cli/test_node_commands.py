"""Nodes: added, changed as a set or not at all, shown, removed."""

from __future__ import annotations

from clibench.desk import Desk
from cloner_core.errors import ExitStatus
from cloner_core.facts import fingerprint
from cloner_core.sightings import BootStep
from cloner_server.state import sightings
from serverbench.scene import Agent, facts


def test_a_node_is_added_with_all_that_is_said_of_it(desk: Desk) -> None:
    view = desk.json(
        *("node", "add", "n01", "--mac", "52-54-00-AA-00-01", "--image", "golden:1", "--disklayout", "simple"),
        *("--hostname", "web.example.org", "--address", "10.1.0.5/24", "--gateway", "10.1.0.1", "--dns", "10.1.0.1"),
        *(
            "--kernel-argument",
            "console=ttyS0",
            "--protect-serial",
            "KEEP",
            "--protected",
            "--boot-order",
            "local-first",
        ),
    )
    interface = view["network"]["interfaces"][0]
    assert view["macs"] == ["52:54:00:aa:00:01"]
    assert (view["image"], view["version"], view["layout"]) == ("golden", 1, "simple")
    assert (view["network"]["hostname"], view["netboot"]) == ("web.example.org", "local")
    assert (interface["dhcp"], interface["addresses"], interface["gateway"]) == (False, ["10.1.0.5/24"], "10.1.0.1")
    assert (view["is_protected"], view["boot_order"]) == (True, "local-first")


def test_a_node_is_shown_with_the_last_steps_of_its_boot(desk: Desk) -> None:
    desk.scene.add_node("n01")
    assert "none seen yet" in desk.run("node", "show", "n01").stdout
    with desk.scene.core.database.write() as connection:
        sightings.record(connection, desk.scene.core.act("boot"), "n01", BootStep.KERNEL, "10.77.0.100")
    assert "kernel 10.77.0.100" in desk.run("node", "show", "n01").stdout


def test_a_machine_that_was_turned_away_is_shown_before_it_is_accepted(desk: Desk) -> None:
    desk.scene.add_node("n01")
    assert desk.run("node", "accept", "n01", "--yes").exit_code == ExitStatus.REFUSED
    desk.scene.arm(has_identity=False)
    Agent(desk.scene).hello()
    desk.scene.clock.now_s += 61
    other = facts(dmi="4c4c4544-0034-4a10-8052-b7c04f4d3032")
    assert Agent(desk.scene, other).try_hello(desk.scene.mint()).status_code == 409
    shown = desk.run("node", "accept", "n01", "--dry-run")
    assert (shown.exit_code, "4c4c4544" in shown.stderr, "would be" in shown.stdout) == (0, True, True)
    assert desk.json("node", "accept", "n01", "--yes")["fingerprint"] == fingerprint(other)
    assert desk.json("node", "set", "n01", "--serial", "S1")[0]["serial"] == "S1"
    assert desk.json("node", "set", "n01", "--serial", "")[0]["serial"] == ""


def test_a_dry_run_of_each_change_changes_nothing(desk: Desk) -> None:
    desk.scene.add_node("n01")
    before = desk.scene.state_dump()
    for words in (
        ["node", "add", "n02", "--mac", "525400000002"],
        ["node", "set", "n01", "--kernel-argument", "quiet"],
        ["node", "remove", "n01"],
    ):
        assert desk.run(*words, "--dry-run").exit_code == 0
    assert desk.scene.state_dump() == before


def test_the_switch_of_a_node_is_set_shown_and_cleared(desk: Desk) -> None:
    desk.scene.add_node("n01")
    assert desk.json("node", "set", "n01", "--switch", "sw-r12")[0]["switch"] == "sw-r12"
    assert "switch            sw-r12\n" in desk.run("node", "show", "n01").stdout
    assert desk.json("node", "set", "n01", "--switch", "")[0]["switch"] == ""
    assert desk.refused("node", "set", "n01", "--switch", "x" * 101).exit_code == ExitStatus.USAGE


def test_fields_not_named_stay_as_they_are(desk: Desk) -> None:
    desk.json("node", "add", "n01", "--mac", "525400000001", "--address", "10.1.0.5/24", "--gateway", "10.1.0.1")
    view = desk.json("node", "set", "n01", "--dns", "10.1.0.2")[0]
    interface = view["network"]["interfaces"][0]
    assert interface["addresses"] == ["10.1.0.5/24"]
    assert (interface["gateway"], interface["dns"], interface["dhcp"]) == ("10.1.0.1", ["10.1.0.2"], False)


def test_an_empty_word_clears(desk: Desk) -> None:
    desk.scene.add_node("n01", kernel_arguments=("quiet",))
    view = desk.json("node", "set", "n01", "--kernel-argument", "", "--image", "")[0]
    assert (view["kernel_arguments"], view["image"]) == ([], "")


def test_a_set_of_nodes_is_changed_as_one(desk: Desk) -> None:
    desk.scene.add_node("n01")
    desk.scene.add_node("n02", "52:54:00:00:00:02")
    assert [view["version"] for view in desk.json("node", "set", "n[01-02]", "--image", "golden:1")] == [1, 1]


def test_the_list_is_a_line_a_node(desk: Desk) -> None:
    desk.scene.add_node("n01")
    desk.scene.add_node("n02", "52:54:00:00:00:02")
    lines = desk.run("node", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["NODE", "n01", "n02"]
    assert "52:54:00:00:00:02" in desk.run("node", "show", "n02").stdout


def test_removing_wants_a_yes(desk: Desk) -> None:
    desk.scene.add_node("n01")
    assert desk.refused("node", "remove", "n01").exit_code == ExitStatus.REFUSED
    assert desk.run("node", "remove", "n01", "--yes").exit_code == 0
    assert desk.json("node", "list") == []


def test_the_network_follows_a_card_that_is_replaced(desk: Desk) -> None:
    desk.json("node", "add", "n01", "--mac", "525400000001", "--address", "10.1.0.5/24")
    interface = desk.json("node", "set", "n01", "--mac", "5254000000ff")[0]["network"]["interfaces"][0]
    assert (interface["mac"], interface["addresses"]) == ("52:54:00:00:00:ff", ["10.1.0.5/24"])


def test_an_address_stays_on_the_first_card_whatever_sorts_before_it(desk: Desk) -> None:
    desk.json("node", "add", "n01", "--mac", "5254000000ff", "--mac", "525400000001", "--address", "10.1.0.5/24")
    interface = desk.json("node", "set", "n01", "--gateway", "10.1.0.1")[0]["network"]["interfaces"][0]
    assert (interface["mac"], interface["gateway"]) == ("52:54:00:00:00:ff", "10.1.0.1")
