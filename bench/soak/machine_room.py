"""A lab with a server that holds the image of the small golden tree, and nodes that cases clone in turn."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloner_initramfs import Cache, default_cache
from vmlab import Lab
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
