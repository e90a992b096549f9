"""A multicast session over netboot: nodes that wait, one that comes late, one whose power goes in the middle."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from cloner_initramfs import Cache
from vmlab import Lab, Machine
from vmlab.disk import GIB, MIB
from vmlab.errors import LabError
from vmlab.golden_busybox import MARKER, golden_busybox
from vmlab.golden_debian import copy_tree
from vmlab.head import Head, build_installer
from vmlab.scene import IMAGE, LAYOUT, LOST_S, Node, layout_file

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]

NODES = tuple(
    Node(f"node0{number}", f"52:54:00:77:00:{10 + number:02x}", f"10.77.0.{10 + number}", f"CLONERDEMO0{number}")
    for number in (1, 2, 3)
)
ALL = "node[01-03]"
CONTENT_BYTES = 24 * MIB  # does not compress
RATE = "3Mbit"  # 80 s for the image: a node that comes late, or again, finds the session sending
WAITS_S = 420
GOES_ON_S = 240
DONE_S = 900


def test_three_nodes_get_one_transmission_one_comes_late_and_one_loses_its_power(lab: Lab, cache: Cache) -> None:
    head = Head(lab, build_installer(cache, lab.directory / "installer"), lost_s=LOST_S)
    tree = copy_tree(golden_busybox(cache), lab.directory / "golden")
    (tree / "srv").mkdir(exist_ok=True)
    content = random.Random(6).randbytes(CONTENT_BYTES)
    (tree / "srv/content").write_bytes(content)
    head.start()
    head.cloner("disklayout-upload", "--disklayout", LAYOUT, "--file", layout_file(lab, size_min="256MiB"))
    head.cloner("new-image", "--root", tree, "--image", IMAGE, "--disklayout", LAYOUT, "--message", "golden")
    for node in NODES:
        network = ["--mac", node.mac, "--address", f"{node.address}/24"]
        head.cloner("node", "add", node.name, *network, "--image", IMAGE, "--disklayout", LAYOUT)
    early, cut, late = (Machine(lab, node.vm(lab, size_bytes=2 * GIB)) for node in NODES)

    # Two wait: nothing is armed, and nothing is written to their disks.
    head.cloner("netboot", "--nodes", ALL, "--set", "cloner-multicast")
    for machine in (early, cut):
        machine.start()
    until("two nodes wait", WAITS_S, lambda: len(those_here(head)) == 2)
    assert {view["node"] for view in head.json("multicast-status")} >= {node.name for node in NODES[:2]}
    assert head.json("task", "list") == []
    assert all(view["memory_bytes"] > 400 * MIB and view["disks"] for view in those_here(head))
    assert all(is_blank(machine) for machine in (early, cut))

    # Called, they go on in the boot they are in; the session begins with them.
    head.cloner("multicast-image", "--image", IMAGE, "--nodes", ALL, "--min", "2", "--rate", RATE, "--yes")
    (session,) = head.json("multicast-list")
    until("both receive", GOES_ON_S, lambda: sum(seat["parcels"] > 0 for seat in seats(head, session["id"])) == 2)
    now = seen(head, session["id"])
    print(now)
    assert now["state"] == "sending"
    cut.kill()
    late.start()
    cut.start()
    for node in NODES:
        assert head.wait_state(node.name, "done", DONE_S)["confirmed_by"] == "phone-home"

    over = seen(head, session["id"])
    assert (over["state"], over["epochs"]) == ("ended", 1), over
    assert all(seat["state"] in ("written", "https") for seat in over["seats"]), over
    receipts = [head.json("receipt", "show", node.name)["receipt"]["body"] for node in NODES]
    assert len({body["machine_id"] for body in receipts}) == len(NODES)
    for node, machine, body in zip(NODES, (early, cut, late), receipts, strict=True):
        said = machine.wait_for(MARKER, 60)
        assert (said["hostname"], said["machine_id"]) == (node.name, body["machine_id"])
        assert any("multicast" in note for note in body["notes"]), body["notes"]
    print([body["notes"] for body in receipts], over)


def until(what: str, deadline_s: float, is_so: Callable[[], bool]) -> None:
    """Wait until it is so; raises LabError when it is not within `deadline_s`."""
    end = time.monotonic() + deadline_s
    while not is_so():
        if time.monotonic() > end:
            raise LabError(f"not within {deadline_s:.0f} s: {what}")
        time.sleep(2)


def those_here(head: Head) -> list[dict[str, Any]]:
    """Return the nodes that have checked in."""
    return [view for view in head.ask("/multicast/waiting") if view["since_s"] is not None]


def seen(head: Head, session: str) -> dict[str, Any]:
    """Return a session as it is now."""
    return dict(head.json("multicast-show", session))


def seats(head: Head, session: str) -> list[dict[str, Any]]:
    """Return the nodes of a session."""
    return list(head.ask(f"/multicast/sessions/{session}")["seats"])


def is_blank(machine: Machine) -> bool:
    """Return whether the disk of a machine holds nothing but zeros where a partition table would be."""
    with machine.vm.disks[0].path.open("rb") as disk:
        return not any(disk.read(MIB))
