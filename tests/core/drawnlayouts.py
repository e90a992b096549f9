"""Machines drawn at random, each with a layout it takes: every kind of table, stack and filesystem, combined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from cloner_core.facts import Facts, Firmware
from cloner_core.layout import (
    Array,
    ArrayMember,
    Content,
    DiskLayout,
    EspCopy,
    Filesystem,
    Layout,
    LogicalVolume,
    Luks,
    Nothing,
    Partition,
    PhysicalVolume,
    Selector,
    Size,
    Subvolume,
    Swap,
    SwapFile,
    Unlock,
    VolumeGroup,
)
from cloner_core.layout.containing import role_of
from cloner_core.layout.rules import layout_faults
from cloner_core.sizes import GIB, MIB
from core.machines import disk, machine

REST = Size(MIB, weight=1)


def sized(mib: int) -> Size:
    """Return a size that does not change with the disk."""
    return Size(mib * MIB, mib * MIB)


def partition(size: Size, content: Content, *, role: Any = None, **more: Any) -> Partition:
    """Return a partition whose role follows from what it holds unless it is given."""
    return Partition(role=role or role_of(content), size=size, content=content, **more)


@dataclass
class Draft:
    """A layout in the making: `carry` puts a content on so many devices below."""

    draw: Any
    arrays: list[Array]
    groups: list[VolumeGroup]
    mappings: int = 0

    def filesystem(self, mount: str) -> Filesystem:
        kind = self.draw(st.sampled_from(["ext4", "xfs", "btrfs"]))
        options = self.draw(st.sampled_from(["defaults", "noatime", "noatime,nodev"]))
        label = self.draw(st.sampled_from(["", "some", "A b"]))
        if kind != "btrfs" or self.draw(st.booleans()):
            return Filesystem(kind=kind, mount=mount, label=label, options=options)
        inner = mount.rstrip("/")
        subvolumes = (
            Subvolume("@", mount),
            Subvolume("@/var", f"{inner}/var", "nodatacow"),
            Subvolume("@snapshots"),
        )
        return Filesystem(kind=kind, mount="", label=label, subvolumes=subvolumes[: self.draw(st.integers(1, 3))])

    def luks(self, content: Filesystem | Swap | PhysicalVolume) -> Luks:
        ways = [Unlock("tpm2"), Unlock("tpm2", (7,)), Unlock("tpm2", (0, 7)), Unlock("passphrase")]
        ways += [Unlock("random")] if isinstance(content, Swap) else []
        unlock = self.draw(st.sampled_from(ways))
        self.mappings += 1
        return Luks(name=f"crypt-{self.mappings}", unlock=unlock, content=content)

    def stacked(self, content: Filesystem, *, may_group: bool = True) -> Filesystem | PhysicalVolume | Luks:
        """Put `content` on a stack that one device carries."""
        way = self.draw(st.sampled_from(["plain", "luks", "lvm", "luks lvm", "lvm luks"]))
        if way == "plain" or (not may_group and "lvm" in way):
            return content
        if way == "luks":
            return self.luks(content)
        name = f"vg-{len(self.groups)}"
        inside = self.luks(content) if way == "lvm luks" else content
        size = self.draw(st.sampled_from([REST, sized(6144), Size(4096 * MIB, max_bytes=6000 * MIB, weight=2)]))
        volumes = [LogicalVolume("main", size, inside)]
        volumes += [LogicalVolume("a-swap", sized(512), Swap(label="s"))] if self.draw(st.booleans()) else []
        self.groups.append(VolumeGroup(name, tuple(volumes), extent_mib=self.draw(st.sampled_from([4, 32]))))
        return self.luks(PhysicalVolume(name)) if way == "luks lvm" else PhysicalVolume(name)


@st.composite
def scenes(draw: Any) -> tuple[Facts, Layout]:
    """Draw a machine and a layout that it takes."""
    draft = Draft(draw, [], [])
    count = draw(st.integers(1, 4))
    size = draw(st.sampled_from([40, 64])) * GIB
    bus, name = draw(st.sampled_from([("virtio", "/dev/vd{}"), ("nvme", "/dev/nvme{}n1"), ("ata", "/dev/sd{}")]))
    disks = [
        disk(name.format(at if bus == "nvme" else "abcd"[at]), size, serial=f"S{at}", bus=bus, by_path=f"pci-{at}")
        for at in range(count)
    ]
    table = draw(st.sampled_from(["gpt", "gpt", "mbr"]))
    is_logical = table == "mbr" and draw(st.booleans())
    contents = _on_disks(draft, count, draw)
    layouts = []
    for at in range(count):
        partitions = [partition(sized(1024), Filesystem("ext4", "/boot"), is_active=table == "mbr")] if at == 0 else []
        if table == "gpt":
            content: Content = Filesystem("vfat", "/boot/efi", label="EFI") if at == 0 else EspCopy()
            partitions.insert(0, partition(sized(512), content, role="esp"))
            partitions += [partition(sized(1), Nothing(), role="bios-boot")] if at == 0 and draw(st.booleans()) else []
        swap: Content = Swap(label="sw") if draw(st.booleans()) else draft.luks(Swap())
        if at == 0:
            partitions.append(partition(sized(1024), swap, is_logical=is_logical))
        rest = draw(st.sampled_from([REST, Size(8 * GIB, max_bytes=20 * GIB, weight=3), sized(12288)]))
        label = draw(st.sampled_from(["", "big one"])) if table == "gpt" else ""
        partitions.append(partition(rest, contents[at], is_logical=is_logical, label=label))
        if at and draw(st.booleans()) and not isinstance(contents[at], Filesystem):
            layouts.append(DiskLayout(f"d{at}", Selector(serial=f"S{at}"), table="none", content=contents[at]))
        else:
            layouts.append(DiskLayout(f"d{at}", Selector(serial=f"S{at}"), tuple(partitions), table=table))
    swapfiles = (SwapFile("/swapfile", 64 * MIB),) if draw(st.booleans()) else ()
    layout = Layout(
        "drawn", tuple(layouts), arrays=tuple(draft.arrays), groups=tuple(draft.groups), swapfiles=swapfiles
    )
    assert not layout_faults(layout), layout_faults(layout)
    return machine(*disks, firmware=draw(st.sampled_from(list(Firmware)))), layout


def _on_disks(draft: Draft, count: int, draw: Any) -> list[Content]:
    """Return what the large partition of each disk holds: the root, on one of them or over all."""
    root = draft.filesystem("/")
    levels = {1: [], 2: ["raid0", "raid1", "raid10"], 3: ["raid5", "raid1"], 4: ["raid6", "raid10", "raid5"]}[count]
    way = draw(st.sampled_from(["each", "group", *levels]))
    if way == "group":
        inside = draft.luks(root) if draw(st.booleans()) else root
        draft.groups.append(VolumeGroup("vg-all", (LogicalVolume("root", REST, inside),)))
        return [PhysicalVolume("vg-all")] * count
    if way == "each":
        others = [draft.stacked(draft.filesystem(f"/srv/{at}")) for at in range(1, count)]
        return [draft.stacked(root), *others]
    name = f"array-{len(draft.arrays)}"
    metadata = draw(st.sampled_from(["1.0", "1.2"]))
    chunk = draw(st.sampled_from([64, 512])) if way != "raid1" else 512
    draft.arrays.append(Array(name, way, draft.stacked(root), metadata=metadata, chunk_kib=chunk))
    return [ArrayMember(name)] * count
