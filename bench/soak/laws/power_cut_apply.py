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
from collections.abc import Callable, Iterator, Sequence
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
from cloner_core.messages import DEPLOY_STAGES, DESTRUCTIVE_FROM, Stage
from cloner_core.sizes import MIB
from soak.book import Entry
from soak.law import Case, Figures, Law, LawBrokenError, require, share
from vmlab.comparison import esp_faults, unexpected_differences
from vmlab.fuse_disk import FuseDisk
from vmlab.volatile import Loss

_DISK_BYTES = 144 * MIB
_NETWORK_ENTRY = 4  # of `make_node`
_MOST_ATTEMPTS = 4
_AGAIN = 0.25  # the next attempt is cut too
_OFTEN = {Stage.PARTITION: 2, Stage.MKFS: 2, Stage.RESTORE: 3, Stage.COMMIT: 6, Stage.NVRAM: 3, Stage.RECEIPT: 3}
_ALL_LOST = 0.0
_SEE_NO_ESP = ("partx", "blkid", "mount")
_JUDGED = "ESPs judged after cuts"
_LEAST = {"dropped bytes": 0.03, "unwritten bytes": 0.5, _JUDGED: 0.25}  # the share of cases that have some

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
        esp = self._esp_files()
        require(esp is not None, "the ESP of a deploy without a cut cannot be read")
        self.former_esp = esp or {}
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
            is_former = begins == "old"
            return {"begins": begins, **self._cut_and_go_on(node, seed, chance, cut_at, is_former=is_former)}
        finally:
            shutil.rmtree(place)

    def _cut_and_go_on(
        self, node: Node, seed: int, chance: random.Random, cut_at: CutAt | None, *, is_former: bool
    ) -> Figures:
        """Cut and go on; `is_former`: the disk holds the system from before."""
        cut_in = []
        whole = [self.former_esp]  # what may boot: the former system, and what was committed by an attempt cut since
        kept = dropped = unwritten = judged = 0
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
                    _JUDGED: judged,
                }
            is_former = is_former and DESTRUCTIVE_FROM not in ran.seconds
            judged += self._check_nothing_half(whole, order, ran, is_former=is_former)
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
        (stage,) = chance.choices(DEPLOY_STAGES, [_OFTEN.get(stage, 1) for stage in DEPLOY_STAGES])
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

    def _check_nothing_half(
        self, whole: list[dict[str, bytes]], order: tuple[int, ...], ran: Ran, *, is_former: bool
    ) -> bool:
        """What may boot is one of the systems known to be whole, or since the commit was granted the whole clone.

        That one nobody knows of before the receipt, so the firmware must ask the network before it. Returns whether
        there was an ESP to be judged. None is no excuse where nothing was written yet, nor where all was flushed before
        the commit was asked for.
        """
        esp = self._esp_files()
        require(not is_former or esp == self.former_esp, "the former system is gone before anything was written")
        require(esp is not None or not ran.has_said("commit"), "the ESP cannot be read since the commit was asked for")
        boots = esp is not None and any(path.startswith("EFI/") for path in esp)
        require(boots or Stage.NVRAM not in ran.seconds, "nothing boots although the commit is over")
        if esp is not None and boots and esp not in whole:
            require(ran.has_said("commit"), f"the disk may boot before the commit: {sorted(esp)}")
            require(order[:1] == (_NETWORK_ENTRY,), f"the clone would boot before the network is asked: {order}")
            self._check_clone()
            whole.append(esp)
        return esp is not None

    def _check_clone(self) -> None:
        found = self._esp_files()
        require(found is not None, "the ESP of the clone cannot be read")
        esp = found or {}
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

    def _esp_files(self) -> dict[str, bytes] | None:
        """Return what lies on the ESP as a firmware sees it; None when there is no table, or no such filesystem."""
        try:
            return self._read(1, _files)
        except ToolError as error:
            if error.argv[0] not in _SEE_NO_ESP:
                raise
            return None

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


def enough(entries: Sequence[Entry]) -> str:
    """See `Law.enough`: cuts lose something, and meet disks that a firmware can read."""
    shares = {name: share(entries, _is_above_zero(name)) for name in _LEAST}
    few = [f"{share:.0%} {name}, {_LEAST[name]:.0%} wanted" for name, share in shares.items() if share < _LEAST[name]]
    return f"too few cases with {'; '.join(few)}" if few else ""


def _is_above_zero(name: str) -> Callable[[Figures], bool]:
    return lambda figures: float(figures.get(name, 0)) > 0


LAW = Law(
    "power-cut-apply",
    "cut anywhere, the agent leaves nothing half that boots, and the next attempt ends in a whole clone",
    1000,
    open_power_cut_apply,
    enough=enough,
)
