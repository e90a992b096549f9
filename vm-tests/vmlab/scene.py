"""The scene of the main job: a golden Debian tree with a key to get in, its layout, and a blank machine.

Shared by the demo and the tests of whole deploys. Must not deploy; whoever uses it does, through `head`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloner_initramfs import Cache
from vmlab.disk import GIB, Bus, blank_disk
from vmlab.golden_debian import ESP_SERIAL, ROOT_UUID, SWAP_UUID, authorize_key, copy_tree, golden_debian
from vmlab.lab import Lab
from vmlab.machine import Nic, Vm
from vmlab.ssh import Key, make_key

IMAGE = "debian"
LAYOUT = "one-disk"
MAC = "52:54:00:77:00:0b"
ADDRESS = "10.77.0.11"
LOST_S = 30.0  # half of the default: for servers of tests that cut power and wait until that is noticed


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the lab."""

    name: str = "node01"
    mac: str = MAC
    address: str = ADDRESS
    serial: str = "CLONERDEMO01"

    @property
    def uuid(self) -> str:
        """Its SMBIOS UUID."""
        number = int(self.mac.replace(":", ""), 16)
        return f"c10e0000-0000-4000-8000-{number:012x}"

    def vm(self, lab: Lab, *, size_bytes: int = 6 * GIB, disks: int = 1, bus: Bus = Bus.VIRTIO) -> Vm:
        """Return its hardware, with disks of zeros; the second one's serial ends in "-1", and so on."""
        made = []
        for index in range(disks):
            serial = f"{self.serial}-{index}" if index else self.serial
            path = lab.directory / f"{self.name}-{index}.disk"
            made.append(blank_disk(path, size_bytes, serial=serial, bus=bus))
        return Vm(self.name, disks=tuple(made), nics=(Nic(self.mac),), uuid=self.uuid)


def golden_tree(cache: Cache, lab: Lab, more: Sequence[str] = ()) -> tuple[Path, Key]:
    """Return a copy of the golden Debian tree with `more` packages that lets root in by a new SSH key, and the key."""
    key = make_key(lab.directory)
    tree = copy_tree(golden_debian(cache, more), lab.directory / "golden")
    authorize_key(tree, key.public)
    return tree, key


def layout_file(lab: Lab, *, name: str = LAYOUT, serial: str = "CLONERDEMO*", size_min: str = "4GiB") -> Path:
    """Write the layout of one disk with ESP, swap and root as a person would, and return its path."""
    esp = {"type": "filesystem", "kind": "vfat", "mount": "/boot/efi", "options": "umask=0077"}
    root = {"type": "filesystem", "kind": "ext4", "mount": "/", "label": "root", "options": "errors=remount-ro"}
    document: dict[str, Any] = {
        "name": name,
        "disks": [
            {
                "id": "system",
                "select": {"serial": serial, "size_min": size_min},
                "partitions": [
                    {"role": "esp", "size": "256MiB", "content": esp | {"source_uuid": ESP_SERIAL}},
                    {"role": "swap", "size": "256MiB", "content": {"type": "swap", "source_uuid": SWAP_UUID}},
                    {"role": "root", "size": "rest", "content": root | {"source_uuid": ROOT_UUID}},
                ],
            }
        ],
    }
    path = lab.directory / f"{name}.json"
    path.write_text(json.dumps(document, indent=2))
    return path


def free_bytes(path: Path) -> int:
    """Return what is free on the file system of `path`."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize
