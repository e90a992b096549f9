"""Of three disks of one size the right one is written, in whatever order they come, and the others keep every byte.

Real machines with virtio, NVMe and SATA disks. One of the decoys holds a former clone of the same image, bootable; the
other a file system and canaries. A layout that more than one disk matches is refused before anything is written.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloner_core.messages import Cause
from cloner_initramfs import Cache, default_cache
from soak.book import Entry
from soak.law import Case, Figures, Law, require
from soak.machine_room import DISK_BYTES, NODES, MachineRoom
from vmlab import Lab, Machine, Nic, Vm, host
from vmlab.disk import MIB, Bus, Disk, blank_disk, content_digest
from vmlab.head import build_installer
from vmlab.scene import Node, layout_file

BUSES = (Bus.VIRTIO, Bus.NVME, Bus.SATA)
ORDERS = tuple(itertools.permutations(range(3)))
_ANY = "any-disk"
_SETTLES_S, _BOOT_S = 900, 420
_ENDED = ("unconfirmed", "done", "failed")


@dataclass(frozen=True, slots=True)
class _Scene:
    room: MachineRoom
    former: Path  # disk of a machine that was cloned before

    def case(self, seed: int) -> Figures:
        """Eighteen seeds are all orders on all buses; from then on the layout fits every disk."""
        bus = BUSES[seed % len(BUSES)]
        order = ORDERS[seed // len(BUSES) % len(ORDERS)]
        is_ambiguous = seed >= len(BUSES) * len(ORDERS)
        with self.room.node() as node:
            name = f"{node.name}-seed{seed}"
            disks = self._disks(node, name, bus, seed)
            try:
                self._try(node, name, disks, order, is_ambiguous=is_ambiguous)
            finally:
                for disk in disks:
                    disk.path.unlink(missing_ok=True)
        return {"bus": bus.value, "order": "".join(map(str, order)), "refused": int(is_ambiguous)}

    def _disks(self, node: Node, name: str, bus: Bus, seed: int) -> tuple[Disk, Disk, Disk]:
        """Make the disk that is meant, a former clone, and one with canaries."""
        folder = self.room.lab.directory
        meant = blank_disk(folder / f"{name}-meant.disk", DISK_BYTES, serial=node.serial, bus=bus)
        former = Disk(folder / f"{name}-former.disk", "FORMER-CLONE", bus)
        host.run(["cp", "--sparse=always", self.former, former.path])
        other = blank_disk(folder / f"{name}-other.disk", DISK_BYTES, serial="SOMEBODY-ELSE", bus=bus)
        host.run(["mkfs.ext4", "-q", "-F", "-L", "precious", other.path])
        chance = random.Random(seed)
        with other.path.open("r+b") as file:
            for at in (0, DISK_BYTES - MIB, *(chance.randrange(DISK_BYTES - MIB) for _ in range(8))):
                file.seek(at + 4096)
                file.write(chance.randbytes(4096))
        return meant, former, other

    def _try(
        self, node: Node, name: str, disks: tuple[Disk, Disk, Disk], order: Sequence[int], *, is_ambiguous: bool
    ) -> None:
        head = self.room.head
        untouched = disks if is_ambiguous else disks[1:]
        before = [content_digest(disk.path) for disk in untouched]
        layout = _ANY if is_ambiguous else "one-disk"
        head.cloner("node", "set", node.name, "--disklayout", layout)
        head.cloner("deploy", "--nodes", node.name, "--yes")
        vm = Vm(
            name,
            disks=tuple(disks[index] for index in order),
            nics=(Nic(node.mac),),
            uuid=node.uuid,
            memory_mib=1024,  # the drivers of SATA come with those of all hardware
            reboots=False,
        )
        machine = Machine(self.room.lab, vm)
        try:
            machine.start(direct=head.direct_boot(node.mac))
            task = self._settled(node)
            machine.wait_off(120)
            if is_ambiguous:
                require(task["state"] == "failed", f"the task is {task['state']}")
                require(task["failure"]["cause"] == Cause.AMBIGUOUS_DISK.value, str(task["failure"]))
                require(not task["failure"]["is_destroyed"], "something was destroyed")
            else:
                require(task["state"] != "failed", f"the deploy failed: {task['failure']}")
                self._boots_the_right_one(node, machine, task, disks[0])
            require([content_digest(disk.path) for disk in untouched] == before, "a disk that is not meant has changed")
        finally:
            machine.kill()
            machine.variables.unlink(missing_ok=True)

    def _settled(self, node: Node) -> dict[str, Any]:
        state = self.room.head.wait_any_state(node.name, _ENDED, _SETTLES_S)
        require(state in _ENDED, f"the task is {state}")
        return self.room.head.task(node.name)

    def _boots_the_right_one(self, node: Node, machine: Machine, task: dict[str, Any], meant: Disk) -> None:
        """Boot: what confirms names the partition that was made, which a former clone has not."""
        head = self.room.head
        (written,) = head.json("receipt", "show", task["id"])["receipt"]["body"]["disks"]
        require(written["serial"] == meant.serial, f"the receipt names {written}")
        if meant.bus is Bus.SATA:  # the golden tree's kernel is the one of virtual machines, without AHCI
            head.cloner("task", "abort", str(task["id"]), "--yes")
            return
        machine.start(reboots=True)
        head.wait_state(node.name, "done", _BOOT_S)
        machine.kill()


@contextmanager
def open_disk_orders(work: Path) -> Iterator[Case]:
    """All cases share one lab; its scratch lies where temporary files do. For SATA, with drivers of all hardware."""
    with Lab(title="disk-orders") as lab:
        room = MachineRoom(lab, build_installer(Cache(default_cache()), lab.directory / "full", drivers="full"))
        yield case_in(room, room.clone())


def case_in(room: MachineRoom, former: Path) -> Case:
    """Return the case of a room; `former` is the disk of a clone that was made there."""
    document = layout_file(room.lab, name=_ANY, serial="*", size_min="256MiB")
    room.head.cloner("disklayout-upload", "--disklayout", _ANY, "--file", document)
    return _Scene(room, former).case


def _enough(entries: Sequence[Entry]) -> str:
    seen = {(entry.figures.get("bus"), entry.figures.get("order")) for entry in entries}
    refused = {entry.figures.get("bus") for entry in entries if entry.figures.get("refused")}
    if len(seen) < len(BUSES) * len(ORDERS):
        return f"only {len(seen)} orders were tried"
    return "" if len(refused) == len(BUSES) else "a bus had no ambiguous case"


LAW = Law(
    "disk-orders",
    "of three disks of one size the right one is written, whatever their order, and the others keep every byte",
    len(BUSES) * len(ORDERS) + len(BUSES),
    open_disk_orders,
    at_once=len(NODES),
    keeps_cases=True,
    enough=_enough,
)
