"""What lies on a disk of this machine is asked of real tools, and detected as the layout that it was made from."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from agentbench.loop import forget_partitions, loop_disk
from cloner_agent.detecting import ask
from cloner_agent.host import run
from cloner_agent.probe import probe
from cloner_core.detection import detect
from cloner_core.facts import Facts
from cloner_core.fstab import make_fstab
from cloner_core.layout import DiskLayout, Filesystem, Layout, Nothing, Partition, Selector, Size, Swap, SwapFile
from cloner_core.messages import BootPolicy
from cloner_core.plan.sequence import steps_of
from cloner_core.sizes import MIB
from cloner_core.steps import Command, Mount
from core.worlds import built, without_measure

ROOT = Partition("root", Size(64 * MIB, weight=1), Filesystem("ext4", "/", label="root", options="noatime"))
ESP = Partition("esp", Size(64 * MIB, 64 * MIB), Filesystem("vfat", "/boot/efi", label="EFI"))
SWAP = Partition("swap", Size(32 * MIB, 32 * MIB), Swap(label="sw"))
BOOT = Partition("data", Size(32 * MIB, 32 * MIB), Filesystem("ext4", "/boot"))
ANY = Selector()


def logical(one: Partition) -> Partition:
    return msgspec.structs.replace(one, is_logical=True)


GPT = Layout(
    "gpt",
    (
        DiskLayout(
            "d",
            ANY,
            (ESP, Partition("bios-boot", Size(MIB, MIB), Nothing()), SWAP, msgspec.structs.replace(ROOT, label="sys")),
        ),
    ),
    swapfiles=(SwapFile("/swapfile", 2 * MIB),),
)
MBR = Layout(
    "mbr",
    (DiskLayout("d", ANY, (msgspec.structs.replace(BOOT, is_active=True), logical(SWAP), logical(ROOT)), table="mbr"),),
)


@pytest.mark.root
@pytest.mark.parametrize("layout", [GPT, MBR], ids=lambda layout: layout.name)
def test_a_disk_made_by_real_tools_is_detected_as_its_layout(layout: Layout, tmp_path: Path) -> None:
    with loop_disk(tmp_path / "disk", 512 * MIB) as disk:
        facts = probe(run, properties=lambda _: {}, disk_names=lambda name: name == disk.name)
        tree = tmp_path / "tree"
        _make(facts, layout, disk.device, tree)
        told = ask(run, tree=str(tree), properties=lambda _: {}, disk_names=lambda name: name == disk.name)
        detected = detect(told, layout.name)
    assert without_measure(detected.layout) == without_measure(layout)
    partitions = [one.size for one in detected.layout.disks[0].partitions]
    assert [one.max_bytes for one in partitions] == [
        0 if one.size.weight else one.size.max_bytes for one in layout.disks[0].partitions
    ]
    uuids = [getattr(one.content, "source_uuid", "-") for one in detected.layout.disks[0].partitions]
    assert all(uuids)


def _make(facts: Facts, layout: Layout, device: str, tree: Path) -> None:
    """Do what a plan says up to the filesystems, and put the clone's fstab into `tree`."""
    plan = built(facts, layout)
    steps = steps_of(plan, hostname="node01", boot=BootPolicy(), inodes={})
    for step in steps[: next(at for at, step in enumerate(steps) if isinstance(step.action, Mount))]:
        if isinstance(step.action, Command) and step.action.argv[0] != "udevadm":
            run(step.action.argv, stdin=step.action.stdin, timeout_s=60)
        if isinstance(step.action, Command) and step.action.argv[0] == "sfdisk":
            forget_partitions(device)
            run(("partx", "--add", device))
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/fstab").write_bytes(make_fstab(None, plan.entries).content)
    for one in plan.swapfiles:
        (tree / one.path.lstrip("/")).write_bytes(bytes(one.size_bytes))
