"""make-installer on a node, and what is said of installers: before a server with a userland, all in one process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clibench.desk import Desk
from cloner_cli.cv import cv_cloner
from cloner_core.errors import ExitStatus
from cloner_core.facts import PciDevice
from cloner_initramfs.nodekernel import NodeKernel
from cloner_server.state import nodes
from initramfsbench.node_parts import RELEASE, drivers_part, kernel_part
from serverbench.installers import with_shelf
from serverbench.scene import facts

RAID = PciDevice("0000:01:00.0", "010700", "pci:v00001000d00000097sv0sd0bc01sc07i00", "mpt3sas", ("mpt3sas",))


class Golden:
    """The kernels of the machine that the commands are typed on."""

    def __init__(self, place: Path) -> None:
        self.kernel = place / "vmlinuz"
        self.kernel.write_bytes(kernel_part())
        self.undriven: tuple[str, ...] = ()
        self.asked: list[tuple[str, list[str]]] = []

    def collect(self, root: Path, release: str, modaliases: Sequence[str]) -> NodeKernel:
        assert root == Path("/")
        self.asked.append((release, list(modaliases)))
        return NodeKernel(RELEASE, self.kernel, drivers_part(), ("e1000", "nvme"), 3, self.undriven, ("btrfs",))


@pytest.fixture
def golden(desk: Desk, tmp_path: Path) -> Golden:
    with_shelf(desk.scene, tmp_path / "installer")
    desk.scene.add_node()
    desk.scene.add_node("n02", "52:54:00:00:00:02")
    machine = Golden(tmp_path)
    desk.kernel = machine.collect
    return machine


def test_a_node_makes_what_all_nodes_boot_from_then_on(desk: Desk, golden: Golden) -> None:
    made = desk.run("make-installer")
    assert made.exit_code == 0, made.stderr
    assert f"installer site: kernel {RELEASE}; a node needs" in made.stdout
    assert "lacks modules that installers have usually: btrfs" in made.stderr
    assert RELEASE in desk.run("installer", "list").stdout
    shown = desk.run("installer", "show", "site").stdout
    assert ("on desk" in shown, "previous" in shown) == (True, True)


def test_the_running_kernel_is_taken_unless_another_is_named(desk: Desk, golden: Golden) -> None:
    desk.run("make-installer", "--dry-run")
    desk.run("make-installer", "--dry-run", "--kernel", "6.1.0-new")
    assert [release for release, _ in golden.asked] == ["", "6.1.0-new"]


def test_the_devices_of_the_fleet_are_asked_for_and_what_has_no_driver_is_said(desk: Desk, golden: Golden) -> None:
    told = msgspec.structs.replace(facts(), pci=(RAID,))
    with desk.scene.core.database.write() as connection:
        nodes.remember_facts(connection, desk.scene.core.act("test"), "n01", told)
    golden.undriven = (RAID.modalias,)
    made = desk.run("make-installer")
    assert golden.asked == [("", [RAID.modalias])]
    assert "no driver for the disk controller 1000:0097 of 1 machines" in made.stderr


def test_a_dry_run_sends_nothing(desk: Desk, golden: Golden) -> None:
    before = desk.scene.state_dump()
    told = desk.json("make-installer", "--dry-run")
    assert told["release"] == RELEASE
    assert desk.scene.state_dump() == before
    assert {method for method, _ in desk.transport.seen} == {"GET"}


def test_one_that_is_there_is_replaced_only_when_told_to_and_put_back(desk: Desk, golden: Golden) -> None:
    desk.run("make-installer")
    golden.asked.clear()
    refused = desk.refused("make-installer")
    assert (refused.exit_code, "--overwrite" in refused.stderr) == (ExitStatus.CONFLICT, True)
    assert golden.asked == [], "nothing is collected for nothing"
    golden.kernel.write_bytes(kernel_part(b"newer"))
    second = desk.run("make-installer", "--overwrite", program=cv_cloner)
    assert second.exit_code == 0, second.stderr
    newer = desk.json("installer", "show", "site")["present"]["kernel"]
    assert desk.run("installer", "use", "site", "--previous", "--dry-run").exit_code == 0
    assert desk.json("installer", "show", "site")["present"]["kernel"] == newer
    assert desk.json("installer", "use", "site", "--previous")["previous"]["kernel"] == newer
    refused = desk.refused("installer", "use", "site", "--previous", "--revision", "1")
    assert refused.exit_code == ExitStatus.CONFLICT


def test_installers_are_chosen_for_nodes_and_for_images(desk: Desk, golden: Golden) -> None:
    desk.run("make-installer", "--name", "el9")
    assert "n[01-02] boots the installer el9" in desk.run("installer", "use", "el9", "--nodes", "n[01-02]").stdout
    assert "image golden boots the installer el9" in desk.run("installer", "use", "el9", "-i", "golden").stdout
    assert "el9" in desk.run("node", "show", "n02").stdout
    assert desk.json("installer", "list")[0]["nodes"] == ["n01", "n02"]
    refused = desk.refused("installer", "remove", "el9", "--yes")
    assert (refused.exit_code, "node n01, node n02, image golden" in refused.stderr) == (ExitStatus.REFUSED, True)
    for words in (["installer", "use", "default", "-n", "n01"], ["node", "set", "n02", "--installer", "default"]):
        assert desk.run(*words).exit_code == 0
    assert desk.run("installer", "use", "default", "--image", "golden").exit_code == 0
    refused = desk.refused("installer", "remove", "el9")
    assert (refused.exit_code, "--yes" in refused.stderr) == (ExitStatus.REFUSED, True)
    assert desk.run("installer", "remove", "el9", "--yes").exit_code == 0


WRONG: dict[str, tuple[list[str], ExitStatus, str]] = {
    "nobody": (["use", "el9"], ExitStatus.USAGE, "one of --nodes, --image and --previous"),
    "both": (["use", "el9", "-n", "n01", "-i", "golden"], ExitStatus.USAGE, "one of"),
    "a version": (["use", "el9", "-i", "golden:1"], ExitStatus.USAGE, "all versions"),
    "unknown": (["use", "nosuch", "-n", "n01"], ExitStatus.NOT_FOUND, "no such installer: 'nosuch'"),
    "unknown node": (["use", "el9", "-n", "n77"], ExitStatus.NOT_FOUND, "n77"),
    "never replaced": (["use", "el9", "--previous"], ExitStatus.REFUSED, "nothing can be put back"),
    "revision of nothing": (["use", "el9", "-n", "n01", "--revision", "1"], ExitStatus.USAGE, "--previous"),
    "shown": (["show", "nosuch"], ExitStatus.NOT_FOUND, "nosuch"),
}


@pytest.mark.parametrize(("words", "status", "told"), WRONG.values(), ids=list(WRONG))
def test_what_cannot_be_is_told_and_changes_nothing(
    desk: Desk, golden: Golden, words: list[str], status: ExitStatus, told: str
) -> None:
    desk.run("make-installer", "--name", "el9")
    result = desk.refused("installer", *words)
    assert (result.exit_code, told in result.stderr) == (status, True), result.stderr


def test_a_server_without_a_userland_says_so(desk: Desk, tmp_path: Path) -> None:
    desk.kernel = Golden(tmp_path).collect
    result: Any = desk.refused("make-installer")
    assert (result.exit_code, "cloner serve --installer" in result.stderr) == (ExitStatus.REFUSED, True)
