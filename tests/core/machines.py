"""Machines, disks and layouts for tests of the planner."""

from __future__ import annotations

from typing import Literal

from cloner_core.facts import Disk, Facts, Firmware, Nic, Signature
from cloner_core.layout import DiskLayout, Filesystem, Layout, Partition, Selector, Size, Swap
from cloner_core.plan import Contents, Plan, make_plan
from cloner_core.sizes import GIB, MIB

SEED = "5eed" * 16
SOURCE_UUID = "0a0a0a0a-1b1b-4c2c-8d3d-4e4e4e4e4e4e"
CONTENTS = (Contents(mount="/", allocated_bytes=700 * MIB, inodes=30_000, source_uuid=SOURCE_UUID),)


def disk(path: str = "/dev/vda", size_bytes: int = 8 * GIB, **changes: object) -> Disk:
    """Return a plain internal disk; `changes` replace its fields."""
    fields: dict[str, object] = {"serial": "CL0001", "model": "VirtDisk", "bus": "virtio", **changes}
    return Disk(path=path, size_bytes=size_bytes, **fields)  # type: ignore[arg-type]


def machine(*disks: Disk, firmware: Firmware = Firmware.UEFI, memory_bytes: int = 450 * MIB) -> Facts:
    """Return a small machine with `disks`."""
    return Facts(
        firmware=firmware,
        arch="x86_64",
        memory_bytes=memory_bytes,
        cpu_count=1,
        kernel_release="6.1.0-cloud",
        boot_mac="52:54:00:00:00:01",
        disks=disks,
        nics=(Nic(name="eth0", mac="52:54:00:00:00:01"),),
    )


REST = Size(MIB, weight=1)
ANY_DISK = Selector()


def layout(*, esp: int = 512 * MIB, swap: int = 1 * GIB, root: Size = REST, select: Selector = ANY_DISK) -> Layout:
    """Return the layout of the demo: esp, swap, ext4 root on one disk."""
    return Layout(
        name="debian",
        disks=(
            DiskLayout(
                id="system",
                select=select,
                partitions=(
                    Partition(
                        role="esp",
                        size=Size(esp, esp),
                        content=Filesystem(kind="vfat", mount="/boot/efi", label="EFI"),
                    ),
                    Partition(role="swap", size=Size(swap, swap), content=Swap()),
                    Partition(role="root", size=root, content=Filesystem(kind="ext4", mount="/"), label="root"),
                ),
            ),
        ),
    )


def data_disk(select: Selector, kind: Literal["ext4", "vfat", "xfs"] = "ext4") -> DiskLayout:
    """Return a second disk with one filesystem for /srv."""
    content = Filesystem(kind=kind, mount="/srv", label="SRV")
    return DiskLayout(id="data", select=select, partitions=(Partition(role="data", size=REST, content=content),))


def plan(facts: Facts, wanted: Layout, contents: tuple[Contents, ...] = CONTENTS, *, has_old_xfs: bool = False) -> Plan:
    """Return a plan with the seed and names all tests share."""
    return make_plan(
        facts,
        wanted,
        node="node01",
        image="debian:3",
        version_digest="ab" * 32,
        seed=SEED,
        contents=contents,
        has_old_xfs=has_old_xfs,
    )


OLD_CONTENT = (
    Signature(device="/dev/vda", kind="gpt", uuid="dddddddd-0000-4000-8000-000000000000"),
    Signature(device="/dev/vda1", kind="ext4", uuid="eeeeeeee-0000-4000-8000-000000000000", label="old"),
)
