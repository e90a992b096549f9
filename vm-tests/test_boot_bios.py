"""Machines that BIOS starts, with a GPT and with an MBR: the clone boots from its disk, a half one nets again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from cloner_initramfs import Cache
from vmlab import Lab, Machine
from vmlab.disk import GIB
from vmlab.firmware import Firmware
from vmlab.golden_bios import golden_bios
from vmlab.golden_busybox import MARKER
from vmlab.golden_debian import ROOT_UUID
from vmlab.head import Head, build_installer
from vmlab.scene import IMAGE, LOST_S, Node

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1500)]

AGENT_S = 600
BOOT_S = 420
ROOT = {"type": "filesystem", "kind": "ext4", "mount": "/", "source_uuid": ROOT_UUID}
BIOS_BOOT = {"role": "bios-boot", "size": "1MiB", "content": {"type": "none"}}
LAYOUTS: dict[str, list[dict[str, Any]]] = {
    "gpt": [BIOS_BOOT, {"role": "root", "size": "rest", "content": ROOT}],
    "mbr": [{"role": "root", "size": "rest", "content": ROOT}],
}


def test_clones_boot_by_bios_from_gpt_and_mbr_and_one_cut_in_the_middle_nets_again(lab: Lab, cache: Cache) -> None:
    nodes = {"gpt": Node(), "mbr": Node("node02", "52:54:00:77:00:0c", "10.77.0.12", "CLONERDEMO02")}
    head = Head(lab, build_installer(cache, lab.directory / "installer"), lost_s=LOST_S)
    head.start()
    tree = golden_bios(cache, lab.directory / "golden")
    machines = {}
    for table in nodes:
        head.cloner("disklayout-upload", "--disklayout", table, "--file", layout_file(lab, table))
    head.cloner("new-image", "--root", tree, "--image", IMAGE, "--disklayout", "gpt", "--message", "golden")
    for table, node in nodes.items():
        network = ["--mac", node.mac, "--address", f"{node.address}/24"]
        head.cloner("node", "add", node.name, *network, "--image", IMAGE, "--disklayout", table, "--confirm", "console")
    head.cloner("deploy", "--nodes", "node[01-02]", "--yes")
    for table, node in nodes.items():
        vm = dataclasses.replace(node.vm(lab, size_bytes=2 * GIB), firmware=Firmware.BIOS)
        machines[table] = Machine(lab, vm)
        machines[table].start(reboots=False, direct=head.direct_boot(node.mac))
    # Power is cut in the middle. The disk comes before the network, and passes on to it.
    machines["mbr"].wait_for(r"CLONER STAGE restore", AGENT_S)
    machines["mbr"].kill()
    machines["mbr"].start(reboots=False)
    for table, node in nodes.items():
        machines[table].wait_off(AGENT_S)
        task = head.wait_state(node.name, "unconfirmed", 10)
        notes = head.json("receipt", "show", task["id"])["receipt"]["body"]["notes"]
        assert "boots by GRUB, started by BIOS" in notes
        machines[table].start()
    for table, node in nodes.items():
        match = machines[table].wait_for(MARKER, BOOT_S)
        assert match["hostname"] == node.name
        machines[table].wait_for(r"CLONER-CONFIRM 1 [^\r\n]* [0-9a-f]{64}", BOOT_S)
        head.cloner("confirm", "--console", machines[table].log)
        head.wait_state(node.name, "done", 10)


def layout_file(lab: Lab, table: str) -> Path:
    disk = {"id": "system", "select": {"serial": "CLONERDEMO*"}, "table": table, "partitions": LAYOUTS[table]}
    path = lab.directory / f"{table}.json"
    path.write_text(json.dumps({"name": table, "disks": [disk]}))
    return path
