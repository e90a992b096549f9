"""Firmware as it is: full, forgetful, and with an order of its own. The clone boots, and the network is asked."""

from __future__ import annotations

import dataclasses

import pytest

from cloner_initramfs import Cache
from vmlab import Lab, Machine
from vmlab.disk import GIB
from vmlab.firmware import Firmware, blank_variables
from vmlab.golden_busybox import MARKER, golden_busybox
from vmlab.head import Head, build_installer
from vmlab.nvram import boot_variables, fill, forget_entries
from vmlab.scene import IMAGE, LAYOUT, Node, layout_file

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1500)]

AGENT_S = 600
BOOT_S = 240
ROOM_BYTES = 4500  # enough for the firmware's own; below 5120 Linux writes nothing more (EFI_MIN_RESERVE)


def test_a_clone_boots_and_is_reached_whatever_its_firmware_does(lab: Lab, cache: Cache) -> None:
    node = Node()
    head = Head(lab, build_installer(cache, lab.directory / "installer"))
    head.start()
    head.cloner("disklayout-upload", "--disklayout", LAYOUT, "--file", layout_file(lab, size_min="256MiB"))
    tree = golden_busybox(cache)
    head.cloner("new-image", "--root", tree, "--image", IMAGE, "--disklayout", LAYOUT, "--message", "golden")
    network = ["--mac", node.mac, "--address", f"{node.address}/24"]
    head.cloner("node", "add", node.name, *network, "--image", IMAGE, "--disklayout", LAYOUT)
    head.cloner("node", "set", node.name, "--confirm", "none")
    head.cloner("deploy", "--nodes", node.name, "--yes")
    variables = blank_variables(Firmware.UEFI, lab.directory / "vars.fd")
    vm = dataclasses.replace(node.vm(lab, size_bytes=2 * GIB), variables=variables)
    machine = Machine(lab, vm)
    # Once, so that the firmware has written what it keeps for itself.
    machine.start()
    machine.wait_for("Start PXE over IPv4", BOOT_S)
    machine.kill()
    fill(variables, free_bytes=ROOM_BYTES)

    # Full: no entry of ours, and the receipt says by what the clone boots.
    machine.start(reboots=False, direct=head.direct_boot(node.mac))
    machine.wait_off(AGENT_S)
    task = head.wait_state(node.name, "done", 10)
    notes = " / ".join(head.json("receipt", "show", task["id"])["receipt"]["body"]["notes"])
    assert "NVRAM is full" in notes
    assert "BOOTX64.EFI" in notes
    assert not [entry for entry in boot_variables(variables).entries.values() if entry.title.startswith("cloner ")]

    # An order of its own, the network first, at every boot: the server is asked, and leads on to the disk.
    rewriting = Machine(lab, dataclasses.replace(vm, name="rewriting", bootindex=True))
    rewriting.start()
    rewriting.wait_for(r"netboot is local", BOOT_S)
    assert rewriting.wait_for(MARKER, BOOT_S)["hostname"] == node.name
    rewriting.kill()

    # It forgets what it knew, with room again: the fallback path boots, and the network is in its order.
    forget_entries(variables)
    assert not boot_variables(variables).entries
    forgetful = Machine(lab, dataclasses.replace(vm, name="forgetful"))
    forgetful.start()
    assert forgetful.wait_for(MARKER, BOOT_S)["hostname"] == node.name
    forgetful.kill()
    left = boot_variables(variables)
    assert [number for number in left.order if "PXEv4" in left.entries[number].title]
