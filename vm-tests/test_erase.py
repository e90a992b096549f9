"""An erase in a machine: a disk by discard, one by its own firmware, a third that stays as it is; then it is off."""

from __future__ import annotations

import dataclasses
import os

import pytest

from cloner_initramfs import Cache
from vmlab import Lab, Machine, host
from vmlab.disk import MIB, Bus, Disk, blank_disk, content_digest
from vmlab.head import Head, build_installer
from vmlab.scene import Node

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1500)]

AGENT_S = 600
SIZE_BYTES = 200 * MIB


def test_disks_that_are_chosen_are_erased_and_another_one_keeps_every_byte(lab: Lab, cache: Cache) -> None:
    node = Node()
    head = Head(lab, build_installer(cache, lab.directory / "installer"))
    head.start()
    head.cloner("node", "add", node.name, "--mac", node.mac, "--address", f"{node.address}/24")
    virtio, nvme, decoy = (
        precious(lab, "virtio", "CLONERDEMO01", Bus.VIRTIO),
        precious(lab, "nvme", "CLONERDEMO01-1", Bus.NVME),
        precious(lab, "decoy", "KEEP01", Bus.VIRTIO),
    )
    before = content_digest(decoy.path)
    head.cloner("erase", "--nodes", node.name, "--disks", "serial=CLONERDEMO01*,size<=1GiB", "--yes")
    machine = Machine(lab, dataclasses.replace(node.vm(lab), disks=(decoy, virtio, nvme)))
    machine.start(direct=head.direct_boot(node.mac))
    machine.wait_off(AGENT_S)  # it did not restart: it is off

    task = head.wait_state(node.name, "done", 10)
    assert (task["kind"], task["confirmed_by"]) == ("erase", "none")
    assert content_digest(decoy.path) == before
    for disk in (virtio, nvme):
        assert not disk.path.read_bytes().strip(b"\0"), disk.path
    assert head.json("node", "show", node.name)["netboot"] == "local"
    body = head.json("receipt", "show", task["id"])["receipt"]["body"]
    erased = {disk["serial"]: disk for disk in body["disks"]}
    assert {serial: disk["way"] for serial, disk in erased.items()} == {
        "CLONERDEMO01": "discard",
        "CLONERDEMO01-1": "nvme-format",
    }
    assert erased["CLONERDEMO01"]["bytes_read"] == SIZE_BYTES
    assert erased["CLONERDEMO01-1"]["bytes_read"] > 2 * MIB
    assert "Success formatting namespace" in erased["CLONERDEMO01-1"]["evidence"][0]
    assert ["KEEP01" in line for line in body["left"]] == [True]
    assert "is signed by" in head.cloner("receipt", "verify", task["id"]).out
    shown = head.cloner("erase", "--nodes", node.name, "--all-disks", "--dry-run").out
    assert "by nvme-format" in shown, "the inventory tells how each disk can be erased"


def precious(lab: Lab, name: str, serial: str, bus: Bus) -> Disk:
    """Return a disk with a filesystem and bytes all over it."""
    disk = blank_disk(lab.directory / f"{name}.disk", SIZE_BYTES, serial=serial, bus=bus)
    host.run(["mkfs.ext4", "-q", "-F", "-L", "payroll", disk.path])
    with disk.path.open("r+b") as file:
        for place in range(40 * MIB, SIZE_BYTES, 8 * MIB):
            file.seek(place)
            file.write(os.urandom(MIB))
    return disk
