"""`cloner identify`: what is on nodes and what is to be, told by MAC address, by name, or of this machine."""

from __future__ import annotations

import msgspec
import pytest

from clibench.desk import Desk
from cloner_core.errors import ExitStatus
from cloner_core.identity import Origin
from cloner_core.identity.origin import origin_file
from serverbench.scene import Agent

ONE, TWO, STRANGE = "52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:99"


@pytest.fixture
def fleet(desk: Desk) -> Desk:
    """Two nodes: the first was deployed, the second has an image that is not there."""
    desk.scene.add_node()
    desk.scene.arm()
    agent = Agent(desk.scene)
    agent.hello()
    agent.deploy()
    assert desk.run("node", "add", "n02", "--mac", TWO).exit_code == ExitStatus.OK
    return desk


def test_nodes_are_told_with_what_is_on_them_and_what_is_to_be(fleet: Desk) -> None:
    one, two = fleet.json("identify", "--method", "node", "n[01-02]")
    digest = fleet.scene.core.catalog.store.version("golden").version
    assert (one["node"], one["image"], one["number"], one["layout"]) == ("n01", "golden", 1, "simple")
    assert one["installed"]["digest"] == digest
    assert (one["installed"]["layout"], one["installed"]["is_wanted"]) == ("simple:1", True)
    assert (two["node"], two["image"], two["number"], two["installed"]) == ("n02", "", None, None)


def test_an_address_names_its_node_however_it_is_written_and_each_node_comes_once(fleet: Desk) -> None:
    assert fleet.run("node", "set", "n01", "--mac", ONE, "--mac", STRANGE).exit_code == ExitStatus.OK
    told = fleet.json("identify", "--method", "mac", f"52-54-00-00-00-01,{TWO}", STRANGE)
    assert [(each["node"], each["asked"]) for each in told] == [("n01", [ONE, STRANGE]), ("n02", [TWO])]


def test_what_is_nobodys_is_named_after_the_rest_was_shown(fleet: Desk) -> None:
    result = fleet.run("identify", "--method", "mac", f"{STRANGE},{ONE}")
    assert result.exit_code == ExitStatus.NOT_FOUND
    assert "node       n01" in result.stdout
    assert STRANGE in result.stderr
    assert ONE not in result.stderr
    result = fleet.run("identify", "--method", "node", "n[01-03]", "--json")
    assert result.exit_code == ExitStatus.NOT_FOUND
    assert "n03" in result.stderr


@pytest.mark.parametrize(
    ("words", "macs", "host_name", "node"),
    [
        ((), (STRANGE, ONE), "n02", "n01"),
        ((), (STRANGE,), "n02", "n02"),
        (("--method", "mac"), (TWO,), "n01", "n02"),
        (("--method", "node"), (TWO,), "n01", "n01"),
    ],
    ids=["by-address", "by-name-when-no-address-is-known", "address-alone", "name-alone"],
)
def test_without_a_list_this_machine_is_meant(
    fleet: Desk, words: tuple[str, ...], macs: tuple[str, ...], host_name: str, node: str
) -> None:
    fleet.macs, fleet.host_name = macs, host_name
    assert [each["node"] for each in fleet.json("identify", *words)] == [node]


def test_a_clone_says_what_it_is_without_the_server(fleet: Desk) -> None:
    origin = Origin("n07", "golden", 3, "a" * 64, "simple", "12")
    fleet.origin = origin_file(origin).content
    fleet.transport.is_away = True
    assert fleet.json("identify") == [msgspec.to_builtins(origin)]
    assert "golden:3 with layout simple, by task 12" in fleet.run("identify").stdout
    fleet.transport.is_away, fleet.macs = False, (ONE,)
    assert [each["node"] for each in fleet.json("identify", "--method", "mac")] == ["n01"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"node": "n01"}', b"\xff"])
def test_a_file_that_says_nothing_of_an_image_is_not_believed(fleet: Desk, content: bytes) -> None:
    fleet.origin = content
    result = fleet.refused("identify")
    assert result.exit_code == ExitStatus.USAGE
    assert "/etc/cloner/image.json" in result.stderr


def test_a_machine_that_is_no_node_is_told_by_what_it_was_looked_for(fleet: Desk) -> None:
    fleet.macs, fleet.host_name = (STRANGE,), "elsewhere"
    result = fleet.refused("identify")
    assert result.exit_code == ExitStatus.NOT_FOUND
    assert STRANGE in result.stderr
    assert "elsewhere" in result.stderr
    fleet.macs = ()
    assert fleet.refused("identify", "--method", "mac").exit_code == ExitStatus.NOT_FOUND


@pytest.mark.parametrize(
    "words", [("n01",), ("--method", "mac", "x,y"), ("--method", "mac", ","), ("--method", "node", "n[")]
)
def test_a_list_that_names_nothing_is_refused(fleet: Desk, words: tuple[str, ...]) -> None:
    assert fleet.refused("identify", *words).exit_code == ExitStatus.USAGE


def test_a_newer_version_makes_what_is_there_the_old_one(fleet: Desk) -> None:
    assert fleet.run("node", "set", "n02", "--image", "golden", "--disklayout", "simple").exit_code == ExitStatus.OK
    assert "golden:1 (the newest)" in fleet.run("identify", "--method", "node", "n02").stdout
    with fleet.scene.core.database.write() as connection:
        from cloner_server.state import images

        images.add_version(connection, fleet.scene.core.act("test"), "golden", 2, "1" * 64)
    told = fleet.run("identify", "--method", "node", "n01").stdout
    assert "golden:2 (the newest)" in told
    assert "golden:1 with layout simple:1" in told
    assert "another version than it is to get" in told


def test_a_node_named_by_digits_is_not_taken_for_a_task(fleet: Desk) -> None:
    """The receipt of n01 is that of task 1."""
    assert fleet.run("node", "add", "1", "--mac", STRANGE).exit_code == ExitStatus.OK
    assert fleet.json("identify", "--method", "node", "1")[0]["installed"] is None


def test_an_image_that_was_never_captured_is_said_not_to_be_there(fleet: Desk) -> None:
    from cloner_server.state.tables import nodes

    with fleet.scene.core.database.write() as connection:
        connection.execute(nodes.update().where(nodes.c.name == "n02").values(image="gone", version=3))
    assert "gone:3, which is not there" in fleet.run("identify", "--method", "node", "n02").stdout
