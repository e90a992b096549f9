"""Inventories and hardware models from the command line."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

from clibench.desk import Desk
from cloner_core.errors import ExitStatus
from cloner_core.facts import Dmi
from cloner_server.state import machines, nodes
from serverbench.scene import facts

MAC = "52:54:00:00:00:99"
R640 = msgspec.structs.replace(facts(MAC), dmi=Dmi(vendor="Dell Inc.", product="PowerEdge R640", serial="S1"))


@pytest.fixture
def offering(desk: Desk) -> Desk:
    """A server that offers an agent."""
    core = desk.scene.core
    desk.scene.core = dataclasses.replace(core, rules=dataclasses.replace(core.rules, has_agent=True))
    return desk


def test_nodes_are_set_to_discover_without_a_question(offering: Desk) -> None:
    offering.scene.add_node(is_protected=True)
    dry = offering.run("netboot", "--nodes", "n01", "--set", "discover", "--dry-run")
    assert (dry.exit_code, offering.scene.netboot()) == (ExitStatus.OK, "local")
    assert "n01   discover" in dry.stdout
    result = offering.run("netboot", "--nodes", "n01", "--set", "discover")
    assert (result.exit_code, offering.scene.netboot()) == (ExitStatus.OK, "discover")
    assert "n01   discover" in result.output


def test_a_machine_that_is_no_node_is_allowed_listed_shown_and_forgotten(offering: Desk) -> None:
    result = offering.run("netboot", "--mac", MAC.upper(), "--set", "discover")
    assert (result.exit_code, MAC in result.output) == (ExitStatus.OK, True)
    assert offering.run("machine", "facts", MAC).exit_code == ExitStatus.NOT_FOUND
    with offering.scene.core.database.write() as connection:
        machines.remember_facts(connection, offering.scene.core.act("test"), MAC, R640)
    listed = offering.run("machine", "list").output
    assert "Dell Inc. PowerEdge R640" in listed
    assert offering.json("machine", "facts", "525400000099")["dmi"]["serial"] == "S1"
    assert offering.run("machine", "forget", MAC, "--dry-run").output.startswith("would forget")
    assert offering.run("machine", "forget", MAC).exit_code == ExitStatus.OK
    assert offering.json("machine", "list") == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--mac", MAC, "--nodes", "n01", "--set", "discover"], "one or the other"),
        (["--mac", MAC, "--set", "cloner"], "'discover' or 'local'"),
        (["--mac", "52:54", "--set", "discover"], "'52:54' is not a MAC address"),
        (["--set", "discover"], "no node is named"),
    ],
)
def test_a_wrong_command_line_is_refused(offering: Desk, words: list[str], told: str) -> None:
    result = offering.run("netboot", *words)
    assert (result.exit_code, told in result.output) == (ExitStatus.USAGE, True)


def test_the_facts_of_a_node_are_shown_with_their_time(desk: Desk) -> None:
    desk.scene.add_node()
    with desk.scene.core.database.write() as connection:
        nodes.remember_facts(connection, desk.scene.core.act("test"), "n01", facts())
    assert "told 20" in desk.run("node", "facts", "n01").output


def test_a_model_is_set_listed_and_removed_and_the_node_says_where_its_settings_come_from(desk: Desk) -> None:
    desk.scene.add_node()
    with desk.scene.core.database.write() as connection:
        nodes.remember_facts(connection, desk.scene.core.act("test"), "n01", R640)
    asked = ("model", "set", "r640", "--vendor", "Dell*", "--product", "PowerEdge R640", "--local-method", "sanboot")
    assert desk.run(*asked, "--dry-run").output == "model r640 would be set for n01\n"
    assert desk.run(*asked).output == "model r640 is set for n01\n"
    assert desk.run("model", "set", "r640", "--boot-order", "local-first").exit_code == ExitStatus.OK
    shown = desk.run("node", "show", "n01").output
    assert "sanboot (by model r640)" in shown
    assert "local-first (by model r640)" in shown
    desk.run("node", "set", "n01", "--local-method", "exit")
    assert "exit (by node)" in desk.run("node", "show", "n01").output
    desk.run("node", "set", "n01", "--local-method", "default")
    assert "sanboot (by model r640)" in desk.run("node", "show", "n01").output
    assert "PowerEdge R640" in desk.run("model", "list").output
    assert desk.run("model", "remove", "r640").exit_code == ExitStatus.OK
    assert "exit (by site)" in desk.run("node", "show", "n01").output


def test_a_model_that_says_nothing_is_refused(desk: Desk) -> None:
    assert desk.run("model", "set", "r640").exit_code == ExitStatus.USAGE
    result = desk.run("model", "set", "r640", "--vendor", "Dell*")
    assert (result.exit_code, "no effect" in result.output) == (ExitStatus.USAGE, True)
    assert desk.run("model", "remove", "r640").exit_code == ExitStatus.NOT_FOUND
