"""A lab with a server that holds the image of the small golden tree, and nodes that cases clone in turn."""

from __future__ import annotations

import dataclasses
import queue
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloner_initramfs import Cache, default_cache
from vmlab import Lab, Machine, Nic, Vm, blank_disk
from vmlab.disk import GIB
from vmlab.golden_busybox import golden_busybox
from vmlab.golden_debian import copy_tree
from vmlab.head import Head, build_installer
from vmlab.scene import IMAGE, LAYOUT, LOST_S, Node, layout_file

NODES = (
    Node("node01", "52:54:00:77:00:0b", "10.77.0.11", "CLONERDEMO01"),
    Node("node02", "52:54:00:77:00:0c", "10.77.0.12", "CLONERDEMO02"),
)
DISK_BYTES = 2 * GIB
_CLONES_S, _ENDS_S = 900, 120


class MachineRoom:
    """The server runs; a case borrows a node and makes its machine."""

    def __init__(self, lab: Lab, installer: Path | None = None) -> None:
        """Start the server with `installer` (that of virtual machines by default) and capture the small tree."""
        cache = Cache(default_cache())
        self.lab = lab
        self.tree = copy_tree(golden_busybox(cache), lab.directory / "golden")  # the cache may forget its own
        self.head = Head(lab, installer or build_installer(cache, lab.directory / "installer"), lost_s=LOST_S)
        self.head.start()
        layout = layout_file(lab, size_min="256MiB")
        self.head.cloner("disklayout-upload", "--disklayout", LAYOUT, "--file", layout)
        described = ["--image", IMAGE, "--disklayout", LAYOUT, "--message", "golden"]
        self.head.cloner("new-image", "--root", self.tree, *described)
        self._free: queue.SimpleQueue[Node] = queue.SimpleQueue()
        for node in NODES:
            network = ["--mac", node.mac, "--address", f"{node.address}/24"]
            self.head.cloner("node", "add", node.name, *network, "--image", IMAGE, "--disklayout", LAYOUT)
            self._free.put(node)

    @contextmanager
    def node(self) -> Iterator[Node]:
        """Lend a node that no other case has; logs are kept when the case fails."""
        node = self._free.get()
        try:
            yield node
        except BaseException:
            self.lab.evidence.failed = True
            raise
        finally:
            self._free.put(node)

    def clone(self) -> Path:
        """Clone a machine that has nothing wrong with it and return its disk; its serial is not on it."""
        with self.node() as node:
            disk = blank_disk(self.lab.directory / "sound.disk", DISK_BYTES, serial=node.serial)
            self.head.cloner("deploy", "--nodes", node.name, "--yes")
            direct = self.head.direct_boot(node.mac)
            vm = Vm("sound", disks=(disk,), nics=(Nic(node.mac),), uuid=node.uuid, memory_mib=1024, reboots=False)
            with Machine(self.lab, dataclasses.replace(vm, direct=direct)) as machine:
                task = self.head.wait_state(node.name, "unconfirmed", _CLONES_S)
                machine.wait_off(_ENDS_S)
            self.head.cloner("task", "abort", str(task["id"]), "--yes")
        return disk.path
