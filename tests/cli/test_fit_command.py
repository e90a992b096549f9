"""`cloner fit`: what is printed of each node, and the status for scripts."""

from __future__ import annotations

from clibench.desk import Desk
from cloner_core.errors import ExitStatus
from cloner_server.state import nodes
from serverbench.scene import facts


def test_a_report_for_people_and_the_status_for_scripts(desk: Desk) -> None:
    desk.scene.add_node()
    desk.scene.add_node("n02", "52:54:00:00:00:02")
    with desk.scene.core.database.write() as connection:
        nodes.remember_facts(connection, desk.scene.core.act("test"), "n01", facts())
    result = desk.run("fit", "golden", "--nodes", "n[01-02]")
    assert result.exit_code == 21, "one of two"
    for said in (
        "n01: fits, golden:1 with layout simple",
        "disk     system is /dev/vda (VirtDisk serial D1, 8.0 GiB, 512-byte sectors)",
        "makes    /dev/vda1: 512.0 MiB, esp, vfat at /boot/efi",
        "n02: DOES NOT FIT",
        "no-inventory: n02 has told nothing of itself yet (cloner netboot --nodes n02 --set discover)",
        "fits 1 of 2 nodes",
    ):
        assert said in result.output
    assert desk.run("fit", "golden:1", "--nodes", "n01").exit_code == ExitStatus.OK
    assert [view["fits"] for view in desk.json("fit", "golden", "--nodes", "n01")] == [True]


def test_what_is_not_there_is_named_at_once(desk: Desk) -> None:
    result = desk.run("fit", "nosuch:7", "--nodes", "n77", "--layout", "none")
    assert result.exit_code == ExitStatus.NOT_FOUND
    for name in ("nosuch", "n77", "none"):
        assert name in result.output
