"""The agent's own code on a disk whose power is cut anywhere: nothing boots too early, the next attempt is whole.

Everything of the agent but network and firmware is real: probe, plan, partitions, filesystems, restore, read-back,
identity, boot files, commit. `agentbench.powered` says what stands for vfat. Where in a stage the power is cut, the
clock decides.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agentbench.golden import LEFT_OVERS, make_golden
from agentbench.loop import LoopDisk
from agentbench.node import MACHINE_ID, Node, make_node
from agentbench.powered import (
    STAGE,
    EspPrograms,
    FirmwareVars,
    Ran,
    Result,
    ToldServer,
    apart,
    loop_device,
    mount_esp,
    run_deploy,
)
from cloner_agent.host import ToolError, run
from cloner_agent.machine import Machine
from cloner_core.efi import parse_order
from cloner_core.messages import Stage
from cloner_core.sizes import MIB
from soak.law import Case, Figures, Law, LawBrokenError, require
from vmlab.comparison import esp_faults, unexpected_differences
from vmlab.fuse_disk import FuseDisk
from vmlab.volatile import Loss

_DISK_BYTES = 144 * MIB
_NETWORK_ENTRY = 4  # of `make_node`
_MOST_ATTEMPTS = 4
_AGAIN = 0.25  # the next attempt is cut too
_OFTEN = {Stage.PARTITION: 2, Stage.MKFS: 2, Stage.RESTORE: 3, Stage.COMMIT: 6, Stage.NVRAM: 3, Stage.RECEIPT: 3}
_ALL_LOST = 0.0

CutAt = tuple[str, float]
"""A line of the node, and the seconds after it."""

# Not dropped: other things work on this machine too, and sync alone must make everything last.
MACHINE = Machine(drop_caches=lambda: None)


class Scene:
    """What all cases share: an image, a disk whose power can be cut, and one that was a clone before."""

    def __init__(self, work: Path, disk: FuseDisk) -> None:
        """Capture the golden tree and deploy it once, uncut."""
        self.work, self.disk = work, disk
        self.golden = make_golden(work / "golden")
        self.server = ToldServer(work / "store", self.golden)
        self.target = work / "target"
        self.target.mkdir()
        self.former = work / "former"
        self.former.touch()
        os.truncate(self.former, _DISK_BYTES)
        disk.insert(self.former)
        node = self._node(work / "reference")
        ran, _ = self._run(node, "reference", None, random.Random(0))
        require(not ran.failure and ran.has_said("receipt"), f"a deploy without a cut failed: {ran.failure}")
        self.former_esp = self._esp_files()
        starts = [*ran.seconds.values(), max(ran.seconds.values()) + 0.1]
        self.spans = {stage: end - start for stage, start, end in zip(ran.seconds, starts, starts[1:], strict=False)}

    def case(self, seed: int) -> Figures:
        """Cut the power of one deploy, perhaps of the next one too, and let one come to its end."""
        return self.trial(seed)

    def trial(
        self, seed: int, *, cut_at: CutAt | None = None, machine: Machine = MACHINE, is_lying: bool = False
    ) -> Figures:
        """Do one case; what is given goes before what chance decides: a test can weaken the agent, or the disk."""
        chance = random.Random(seed)
        begins = chance.choice(("blank", "old"))
        place = self.work / f"case-{seed}"
        node = self._node(place, machine)
        medium = place / "medium"
        if begins == "old":
            run(("cp", "--sparse=always", str(self.former), str(medium)))
        else:
            medium.touch()
            os.truncate(medium, _DISK_BYTES)
        self.disk.insert(medium, is_lying=is_lying)
        try:
            return {"begins": begins, **self._cut_and_go_on(node, seed, chance, cut_at)}
        finally:
            shutil.rmtree(place)

    def _cut_and_go_on(self, node: Node, seed: int, chance: random.Random, cut_at: CutAt | None) -> Figures:
        cut_in = []
        whole = [self.former_esp]  # what may boot: the former system, and what was committed by an attempt cut since
        kept = dropped = unwritten = 0
        for number in range(1, _MOST_ATTEMPTS + 1):
            is_cut = number == 1 or (number == 2 and chance.random() < _AGAIN)
            moment = (cut_at or self._choose(chance)) if is_cut else None
            ran, loss = self._run(node, f"{seed} {number}", moment, chance)
            require(not ran.failure, f"attempt {number} failed: {ran.failure}")
            kept, dropped = kept + loss.kept_bytes, dropped + loss.dropped_bytes
            unwritten += loss.unwritten_bytes
            cut_in.append(ran.stage if ran.is_cut else "restart")
            order = self._boot_order(node)
            if ran.has_said("receipt"):
                require(order[:1] == (_NETWORK_ENTRY,), f"the network is not first: {order}")
                self._check_clone()
                return {
                    "first cut in": cut_in[0],
                    "attempts": number,
                    "kept bytes": kept,
                    "dropped bytes": dropped,
                    "unwritten bytes": unwritten,
                }
            self._check_nothing_half(whole, order, may_boot=ran.has_said("commit"))
        raise LawBrokenError(f"no attempt came to its end: cut in {', '.join(cut_in)}")

    def _node(self, place: Path, machine: Machine = MACHINE) -> Node:
        place.mkdir()
        disk = LoopDisk(self.disk.file, "")
        node = make_node(place, self.server, disk, disk, self.target)
        node.programs = EspPrograms(place / "esp")
        node.variables = FirmwareVars
        node.machine = machine
        return node

    def _choose(self, chance: random.Random) -> CutAt:
        (stage,) = chance.choices(list(Stage), [_OFTEN.get(stage, 1) for stage in Stage])
        return f"{STAGE}{stage}", chance.uniform(0, self.spans.get(stage, 0.1))

    def _run(self, node: Node, name: str, cut_at: CutAt | None, chance: random.Random) -> tuple[Ran, Loss]:
        node.changes = {"seed": hashlib.sha256(name.encode()).hexdigest()}
        with loop_device(self.disk.file) as device:
            node.disk = LoopDisk(self.disk.file, device)
            ran = run_deploy(node, cut_at=cut_at, power_off=self.disk.power_off)
        return ran, self.disk.power_on(chance, None if ran.is_cut else _ALL_LOST)

    def _boot_order(self, node: Node) -> tuple[int, ...]:
        variables = FirmwareVars(node.efivars).all()
        order = parse_order(variables["BootOrder"])
        require(_NETWORK_ENTRY in order and "Boot0004" in variables, f"the network is lost: {order}")
        return order

    def _check_nothing_half(self, whole: list[dict[str, bytes]], order: tuple[int, ...], *, may_boot: bool) -> None:
        """What may boot is one of the systems known to be whole, or since the commit was granted the whole clone.

        That one nobody knows of before the receipt, so the firmware must ask the network before it.
        """
        esp = self._esp_files()
        if not any(path.startswith("EFI/") for path in esp) or esp in whole:
            return
        require(may_boot, f"the disk may boot before the commit: {sorted(esp)}")
        require(order[:1] == (_NETWORK_ENTRY,), f"the clone would boot before the network is asked: {order}")
        self._check_clone()
        whole.append(esp)

    def _check_clone(self) -> None:
        esp = self._esp_files()
        require(esp.pop("EFI/vendor/settings", b"") == b"kept\n", "a file of the image is missing on the ESP")
        faults = esp_faults(esp, self.golden)
        require(not faults, f"the ESP is not whole: {faults}")
        differing, machine_id = self._read(3, self._look_at_clone)
        require(not differing, f"the clone differs from the golden tree: {differing[:5]}")
        require(machine_id == MACHINE_ID, f"the machine-id is {machine_id}")

    def _look_at_clone(self, clone: Path) -> tuple[list[str], str]:
        differing = [
            line for line in unexpected_differences(self.golden, clone, also=LEFT_OVERS) if " boot/efi/" not in line
        ]
        return differing, (clone / "etc/machine-id").read_text().strip()

    def _esp_files(self) -> dict[str, bytes]:
        """Return what lies on the ESP as a firmware sees it; nothing when there is no such filesystem."""
        try:
            return self._read(1, _files)
        except ToolError:
            return {}

    def _read(self, number: int, look: Callable[[Path], Result]) -> Result:
        """Return what `look` finds on a partition, mounted as by a system that starts after the power was lost."""
        with loop_device(self.disk.file) as device:
            run(("partx", "--add", device))
            partition = f"{device}p{number}"

            def mount_and_look() -> Result:
                if number == 1:
                    require_vfat(partition)
                    mount_esp(partition, str(self.target))
                else:
                    run(("mount", "-t", "ext4", partition, str(self.target)))
                    run(("umount", str(self.target)))
                    run(("e2fsck", "-f", "-n", partition))
                    run(("mount", "-t", "ext4", "-o", "ro", partition, str(self.target)))
                return look(self.target)

            return apart(mount_and_look)


def _files(root: Path) -> dict[str, bytes]:
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def require_vfat(partition: str) -> None:
    """Raise ToolError unless the partition holds a vfat, behind which its stand-in lies."""
    run(("blkid", "--probe", "--match-types", "vfat", partition))


@contextmanager
def open_power_cut_apply(work: Path) -> Iterator[Case]:
    """All cases share one mounted disk, whose medium they change."""
    with open_scene(work) as scene:
        yield scene.case


@contextmanager
def open_scene(work: Path) -> Iterator[Scene]:
    """Mount the disk and make the scene on it."""
    (work / "disk").mkdir()
    with FuseDisk(work / "disk") as disk:
        yield Scene(work, disk)


LAW = Law(
    "power-cut-apply",
    "cut anywhere, the agent leaves nothing half that boots, and the next attempt ends in a whole clone",
    1000,
    open_power_cut_apply,
)
