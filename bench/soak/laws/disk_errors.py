"""A deploy onto a disk with a sector that cannot be written, or read, fails, and says which disk and where.

Real machines; QEMU's blkdebug breaks one sector of those a deploy uses. Which it uses is known from one onto a sound
disk; files may lie elsewhere in the next, so a deploy that never touched its broken sector is no case: another sector
is broken. Whether it was touched the kernel of the machine says: one that had the error and ends well breaks the law.
"""

from __future__ import annotations

import dataclasses
import os
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cloner_core.messages import Cause
from soak.book import Entry
from soak.law import Case, Figures, Law, LawBrokenError, require
from soak.machine_room import DISK_BYTES, NODES, MachineRoom
from vmlab import Lab, Machine, Nic, Vm, blank_disk
from vmlab.disk import BrokenSector, Disk
from vmlab.scene import Node

_SECTOR_BYTES = 512
_LONGEST_REQUEST_BYTES = 32 << 20  # the kernel names where a request began, which may hold the sector in its middle
_SETTLES_S = 900  # a deploy, the wait for a former attempt to be lost included
_MOST_TRIES = 6
_ENDED_WELL = ("unconfirmed", "done")
_KERNEL_SAYS = "I/O error, dev vda"
_NAMED = re.compile(r"error of /dev/vda at byte (\d+)")

Operation = Literal["read", "write"]


@dataclass(frozen=True, slots=True)
class _Scene:
    room: MachineRoom
    extents: Sequence[tuple[int, int]]  # of the disk of a deploy, in bytes: first, and the one after the last

    def case(self, seed: int) -> Figures:
        """Deploy onto a disk with one broken sector; what chance decides, the seed does."""
        chance = random.Random(seed)
        operation: Operation = chance.choice(("write", "write", "read"))
        for tries in range(1, _MOST_TRIES + 1):
            begin, end = chance.choice(self.extents)
            sector = chance.randrange(begin // _SECTOR_BYTES, end // _SECTOR_BYTES)
            with self.room.node() as node:
                failure = _failure(self.room, node, f"{node.name}-seed{seed}-{tries}", BrokenSector(sector, operation))
            if failure is not None:
                return {"operation": operation, "tries": tries, **_judge(failure, sector * _SECTOR_BYTES)}
        raise LawBrokenError(f"{_MOST_TRIES} deploys did not touch their broken sector")


def _judge(failure: dict[str, str], broken: int) -> Figures:
    """Hold a failure to the byte that could not be read or written."""
    message = failure["message"]
    require(failure["cause"] == Cause.DISK_IO.value, f"the cause is {failure['cause']}: {message}")
    named = [int(byte) for byte in _NAMED.findall(message)]
    require(any(0 <= broken - byte < _LONGEST_REQUEST_BYTES for byte in named), f"byte {broken} failed: {message}")
    return {"stage": failure["stage"], "byte": broken}


def _failure(room: MachineRoom, node: Node, name: str, broken: BrokenSector | None) -> dict[str, str] | None:
    """Deploy onto a blank disk; return how that failed, None when it did not."""
    disk = _disk(room, node, name)
    variables = disk.path.with_suffix(".fd")
    attached = dataclasses.replace(disk, broken=broken)
    vm = Vm(name, disks=(attached,), nics=(Nic(node.mac),), uuid=node.uuid, variables=variables, reboots=False)
    room.head.cloner("deploy", "--nodes", node.name, "--yes")
    try:
        with Machine(room.lab, dataclasses.replace(vm, direct=room.head.direct_boot(node.mac))) as machine:
            task = _settled(room, node)
            has_error = _KERNEL_SAYS in machine.said()
        if task["state"] == "failed":
            require(has_error, f"it failed, and the kernel told of no error: {task['failure']}")
            return dict(task["failure"])
        require(not has_error, f"the kernel told of an error, and the task is {task['state']}")
        room.head.cloner("task", "abort", str(task["id"]), "--yes")
        return None
    finally:
        for path in (disk.path, variables, disk.path.with_suffix(".blkdebug")):
            path.unlink(missing_ok=True)


def _settled(room: MachineRoom, node: Node) -> dict[str, Any]:
    """Return the task of a node once it has failed, or has a receipt."""
    states = ("failed", *_ENDED_WELL)
    state = room.head.wait_any_state(node.name, states, _SETTLES_S)
    require(state in states, f"the task is {state}")
    return room.head.task(node.name)


def _disk(room: MachineRoom, node: Node, name: str) -> Disk:
    return blank_disk(room.lab.directory / f"{name}.disk", DISK_BYTES, serial=node.serial)


def _extents(path: Path) -> list[tuple[int, int]]:
    """Return which bytes of a sparse file hold data."""
    found, end = list[tuple[int, int]](), 0
    with path.open("rb") as file:
        while True:
            try:
                begin = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:  # ENXIO: none after that
                return found
            end = os.lseek(file.fileno(), begin, os.SEEK_HOLE)
            found.append((begin, end))


@contextmanager
def open_disk_errors(work: Path) -> Iterator[Case]:
    """All cases share one lab; its scratch lies where temporary files do."""
    with Lab(title="disk-errors") as lab:
        room = MachineRoom(lab)
        yield case_in(room, room.clone())


def case_in(room: MachineRoom, sound: Path, *, least_bytes: int = 1) -> Case:
    """Return the case of a room; `sound` is the disk of a clone that was made there.

    What breaks is in a piece of at least `least_bytes` that was written to that disk.
    """
    return _Scene(room, [(begin, end) for begin, end in _extents(sound) if end - begin >= least_bytes]).case


def _enough(entries: Sequence[Entry]) -> str:
    seen = {entry.figures.get("operation") for entry in entries}
    stages = {entry.figures.get("stage") for entry in entries}
    missing = sorted({"read", "write"} - seen)
    if missing or len(stages) < 3:
        return f"no {' and no '.join(missing)} failed" if missing else f"all failed in {', '.join(map(str, stages))}"
    return ""


LAW = Law(
    "disk-errors",
    "a deploy onto a disk with a sector that cannot be written or read fails, and names disk and byte",
    20,
    open_disk_errors,
    at_once=len(NODES),
    keeps_cases=True,
    enough=_enough,
)
