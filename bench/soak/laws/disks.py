"""A clone boots from every kind of disk and layout by itself, and looks from inside as the layout says.

Real machines with a real Debian. A case is one row of the matrix (`vmlab.variants`): deployed on blank disks, booted
from them by its firmware, confirmed to the server, and looked at over SSH; where the layout promises to survive a
disk, one is pulled and the clone boots again.
"""

from __future__ import annotations

import dataclasses
import json
import queue
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cloner_initramfs import Cache, default_cache
from soak.law import Case, Figures, Law, require
from vmlab import Lab, Machine, Nic, Vm
from vmlab.disk import blank_disk
from vmlab.golden_debian import STORAGE
from vmlab.head import Head, build_installer
from vmlab.scene import IMAGE, Node, golden_tree
from vmlab.ssh import Key, ssh, wait_for_ssh
from vmlab.variants import VARIANTS, Variant

_NODES = (
    Node("node01", "52:54:00:77:00:0b", "10.77.0.11", "ONE"),
    Node("node02", "52:54:00:77:00:0c", "10.77.0.12", "ONE"),
)
_MARKERS = ("/home/golden/marker", "/var/lib/golden-marker", "/usr/share/golden-marker", "/boot/golden-marker")
_AGENT_S, _BOOT_S = 900, 900
_DEGRADED_S = 1500  # an initramfs waits for the disk that is missing


@dataclass(frozen=True, slots=True)
class _Scene:
    lab: Lab
    head: Head
    key: Key
    free: queue.SimpleQueue[Node]

    def case(self, seed: int) -> Figures:
        """Deploy one variant; the seed says which."""
        variant = VARIANTS[seed % len(VARIANTS)]
        node = self.free.get()
        try:
            self._deploy(node, variant)
        except BaseException:
            self.lab.evidence.failed = True
            raise
        finally:
            self.free.put(node)
        return {"variant": variant.name}

    def _deploy(self, node: Node, variant: Variant) -> None:
        head, name = self.head, f"{node.name}-{variant.name}"
        head.cloner("node", "set", node.name, "--disklayout", variant.name)
        head.cloner("deploy", "--nodes", node.name, "--yes")
        disks = tuple(
            blank_disk(
                self.lab.directory / f"{name}-{drive.serial}.disk",
                drive.size_bytes,
                serial=drive.serial,
                bus=drive.bus,
                sector_bytes=drive.sector_bytes,
            )
            for drive in variant.drives
        )
        vm = Vm(name, disks=disks, nics=(Nic(node.mac),), uuid=node.uuid, memory_mib=768, firmware=variant.firmware)
        try:
            machine = Machine(self.lab, vm)
            machine.start(reboots=False, direct=head.direct_boot(node.mac))
            try:
                task = head.wait_state(node.name, "unconfirmed", _AGENT_S)
                machine.wait_off(60)
            finally:
                machine.kill()
            with machine:
                head.wait_state(node.name, "done", _BOOT_S)
                self._look(node, variant)
                self._switch_off(node, machine)
            if variant.pulled:
                left = tuple(disk for disk in disks if disk.serial != variant.pulled)
                alone = dataclasses.replace(vm, name=f"{name}-alone", disks=left, variables=machine.variables)
                with Machine(self.lab, alone) as machine:
                    wait_for_ssh(self.lab, node.address, self.key, deadline_s=_DEGRADED_S)
                    # The ESP that is mounted is on the disk that is gone; the firmware has started its copy.
                    mounts = {mount: kind for mount, kind in variant.mounts.items() if mount != "/boot/efi"}
                    self._look(node, dataclasses.replace(variant, mounts=mounts, says={}))
            require(head.task(node.name)["id"] == task["id"], "another task was made")
        finally:
            for disk in disks:
                disk.path.unlink(missing_ok=True)

    def _look(self, node: Node, variant: Variant) -> None:
        """Hold the clone, from inside, to what its layout says."""
        wait_for_ssh(self.lab, node.address, self.key, deadline_s=_BOOT_S)
        shown = json.loads(self._ask(node, "findmnt --json --list --output TARGET,FSTYPE,SOURCE,OPTIONS"))[
            "filesystems"
        ]
        seen = {one["target"]: one["fstype"] for one in shown}
        require(
            {mount: seen.get(mount) for mount in variant.mounts} == dict(variant.mounts),
            f"{variant.name}: mounted are {seen}, want {dict(variant.mounts)}",
        )
        told = self._ask(node, f"cat {' '.join(_MARKERS)}").split()
        require(told == [Path(path).name for path in _MARKERS], f"{variant.name}: the golden files say {told}")
        # What lies beneath a mount point shows nothing: the files are on the volume, not below it.
        beneath = "; ".join(f"ls -A /mnt{mount}" for mount in variant.mounts if mount != "/" and mount in seen)
        hidden = self._ask(node, f"mount --bind / /mnt && {{ {beneath or 'true'}; }}; umount /mnt") if beneath else ""
        only = {mount.rpartition("/")[2] for mount in variant.mounts}  # of nested mounts the folder is there
        require(set(hidden.split()) <= only, f"{variant.name}: shadowed are {hidden.split()}")
        for command, pattern in variant.says.items():
            said = self._ask(node, command)
            require(re.search(pattern, said) is not None, f"{variant.name}: {command} says {said!r}, want {pattern}")
        failed = self._ask(node, "systemctl --failed --plain --no-legend").strip()
        require(not failed, f"{variant.name}: units failed: {failed}")

    def _ask(self, node: Node, command: str) -> str:
        return ssh(self.lab, node.address, self.key, command, timeout_s=120)

    def _switch_off(self, node: Node, machine: Machine) -> None:
        self._ask(node, "sync; systemctl poweroff --no-block || true")
        machine.wait_off(300)


@contextmanager
def open_disks(work: Path) -> Iterator[Case]:
    """All cases share one lab; its scratch lies where temporary files do."""
    with Lab(title="disks") as lab:
        cache = Cache(default_cache())
        tree, key = golden_tree(cache, lab, STORAGE)
        for path in _MARKERS:
            marker = tree / path.lstrip("/")
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.write_text(f"{marker.name}\n")
        head = Head(lab, build_installer(cache, lab.directory / "installer"))
        head.start()
        for variant in VARIANTS:
            document = lab.directory / f"{variant.name}.json"
            document.write_text(json.dumps(variant.layout))
            head.cloner("disklayout-upload", "--disklayout", variant.name, "--file", document)
        described = ["--image", IMAGE, "--disklayout", VARIANTS[0].name, "--message", "golden"]
        head.cloner("new-image", "--root", tree, *described)
        free: queue.SimpleQueue[Node] = queue.SimpleQueue()
        for node in _NODES:
            network = ["--mac", node.mac, "--address", f"{node.address}/24"]
            described = ["--image", IMAGE, "--disklayout", VARIANTS[0].name]
            head.cloner("node", "add", node.name, *network, *described)
            free.put(node)
        yield _Scene(lab, head, key, free).case


LAW = Law(
    "disks",
    "a clone boots by itself from every kind of disk and layout, and looks from inside as the layout says",
    len(VARIANTS),
    open_disks,
    at_once=len(_NODES),
    keeps_cases=True,
)
