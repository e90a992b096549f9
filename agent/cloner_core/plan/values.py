"""What a plan is made of: disks, partitions, what lies on them, and steps, with every identifier chosen."""

from __future__ import annotations

from typing import Literal

import msgspec

from cloner_core.facts import Disk
from cloner_core.layout import Subvolume, Unlock, mapper_name
from cloner_core.steps import Step


class _Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of what a plan holds."""


class Contents(_Value, frozen=True):
    """What a version puts on one filesystem of the layout."""

    mount: str  # "/": the longest mount point of the layout that is a prefix of the files
    allocated_bytes: int  # data ranges of all files, each rounded up to 4096; hard links once
    inodes: int  # of every kind
    source_uuid: str = ""  # identifier the filesystem had on the golden node; "" unknown


class PlannedPartition(_Value, frozen=True):
    """One entry of a partition table."""

    number: int  # from 1
    device: str  # "/dev/nvme0n1p1"
    role: str  # of the layout; "extended" for the container of logical partitions
    kind: str  # type GUID, lower case; "83" in an MBR
    part_uuid: str  # lower case; of an MBR "1a2b3c4d-05", as the kernel makes it
    start_sectors: int  # logical sectors of the disk
    size_sectors: int
    name: str = ""  # in a GPT
    is_kept: bool = False  # was there before, and stays
    is_active: bool = False  # the boot flag of an MBR
    attributes: str = ""  # of a kept one in a GPT, as sfdisk writes them: "RequiredPartition GUID:60,63"


class PlannedDisk(_Value, frozen=True):
    """One chosen disk and its new table."""

    id: str  # of the layout
    disk: Disk
    table_guid: str  # GUID of a GPT, "0x1a2b3c4d" of an MBR, "" without a table
    partitions: tuple[PlannedPartition, ...]
    table: Literal["gpt", "mbr", "none"] = "gpt"

    @property
    def is_kept(self) -> bool:
        """Whether something on it stays."""
        return any(one.is_kept for one in self.partitions)


class PlannedArray(_Value, frozen=True):
    """One md array."""

    id: str  # of the layout, and its name in the superblock
    device: str  # "/dev/md120", while the agent works
    level: str
    metadata: str
    uuid: str  # lower case, with hyphens
    members: tuple[str, ...]  # device paths
    member_bytes: int  # what each gives
    offset_bytes: int  # where data begins on a member; 0: the format's own place
    size_bytes: int
    chunk_kib: int = 0  # of striped levels


class PlannedLogical(_Value, frozen=True):
    """One logical volume."""

    name: str
    extents: int


class PlannedGroup(_Value, frozen=True):
    """One LVM volume group."""

    name: str
    extent_mib: int
    physical: tuple[str, ...]  # device paths
    volumes: tuple[PlannedLogical, ...]

    def device(self, volume: PlannedLogical) -> str:
        """Return the path of one of its volumes."""
        return f"/dev/mapper/{mapper_name(self.name, volume.name)}"


class PlannedCrypt(_Value, frozen=True):
    """One LUKS2 container; or swap that gets a new key at each boot, of which nothing is made before."""

    name: str  # of the mapping
    backing: str  # device path
    uuid: str  # "" where nothing is made
    unlock: Unlock
    source: str  # what crypttab(5) calls the device: "UUID=…", "PARTUUID=…"
    sector_bytes: int
    source_uuid: str = ""  # what the image calls it
    is_early: bool = False  # opened by the initramfs

    @property
    def device(self) -> str:
        """The mapping."""
        return f"/dev/mapper/{self.name}"

    @property
    def is_fresh(self) -> bool:
        """Whether it is made anew, with a new key, at each boot."""
        return self.unlock.way == "random"


class PlannedVolume(_Value, frozen=True):
    """A block device with a filesystem or swap on it."""

    device: str  # "/dev/vda3", "/dev/md120", "/dev/mapper/vg0-root"
    id: str  # "system/3", "array root", "vg0/root": for people
    filesystem: str  # "vfat", "ext4", "xfs", "btrfs", "swap"; of a kept one what is there
    uuid: str  # as blkid prints it: lower-case UUID; "1A2B-3C4D" for vfat
    size_bytes: int
    sector_bytes: int
    role: str = "data"  # "esp", "esp-copy", "swap", "root", "data"
    part_uuid: str = ""  # of the partition it fills; "" when it lies on something else
    label: str = ""
    mount: str = ""  # path in the clone; "" for swap, and for btrfs of which subvolumes alone are mounted
    options: str = ""  # fourth field of fstab(5)
    subvolumes: tuple[Subvolume, ...] = ()
    source_uuids: tuple[str, ...] = ()  # what the image calls it
    is_kept: bool = False  # was there before: neither made nor filled


class PlannedMount(_Value, frozen=True):
    """One line of the clone's fstab: where a volume, or a part of it, is mounted; or swap."""

    device: str  # of a swap file its path
    filesystem: str
    uuid: str  # "" of a swap file
    mount: str  # "" for swap
    options: str = ""
    part_uuid: str = ""
    subvolume: str = ""  # of btrfs; "" the top
    is_kept: bool = False


class PlannedSwapFile(_Value, frozen=True):
    """One swap file."""

    path: str  # in the clone
    size_bytes: int
    filesystem: str  # that it lies on
    uuid: str


class Plan(_Value, frozen=True):
    """Everything a deploy will do, in order, all identifiers chosen."""

    node: str
    image: str  # "debian:3"
    version_digest: str
    layout: str
    disks: tuple[PlannedDisk, ...]
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()  # worth an admin's eye; nothing is refused for them
    volumes: tuple[PlannedVolume, ...] = ()
    arrays: tuple[PlannedArray, ...] = ()
    groups: tuple[PlannedGroup, ...] = ()
    crypts: tuple[PlannedCrypt, ...] = ()
    swapfiles: tuple[PlannedSwapFile, ...] = ()

    @property
    def partitions(self) -> tuple[PlannedPartition, ...]:
        """All partitions of all disks, in layout order."""
        return tuple(partition for disk in self.disks for partition in disk.partitions)

    @property
    def mounts(self) -> tuple[PlannedMount, ...]:
        """What the clone mounts, parents before children."""
        found = [mount for volume in self.volumes for mount in mounts_of_volume(volume)]
        return tuple(sorted(found, key=lambda one: components(one.mount)))

    @property
    def entries(self) -> tuple[PlannedMount, ...]:
        """What the clone's fstab must name: the mounts, then swap."""
        swaps = (
            PlannedMount(one.device, "swap", one.uuid, "", part_uuid=one.part_uuid)
            for one in self.volumes
            if one.filesystem == "swap"
        )
        fresh = (PlannedMount(one.device, "swap", "", "") for one in self.crypts if one.is_fresh)  # of no lasting UUID
        files = (PlannedMount(one.path, "swap", "", "") for one in self.swapfiles)  # no identifier names a file
        return (*self.mounts, *swaps, *fresh, *files)

    @property
    def root(self) -> PlannedMount:
        """What is mounted at "/"."""
        return next(one for one in self.mounts if one.mount == "/")

    @property
    def root_id(self) -> str:
        """What the clone can say it runs from: the PARTUUID under /, or the filesystem's UUID on anything stacked."""
        return self.root.part_uuid or self.root.uuid

    @property
    def boot(self) -> PlannedMount:
        """What holds /boot."""
        return next((one for one in self.mounts if one.mount == "/boot"), self.root)

    @property
    def esp(self) -> PlannedVolume | None:
        """The EFI system partition that the clone mounts; None when the layout has none."""
        return next((one for one in self.volumes if one.role == "esp"), None)

    @property
    def esp_copies(self) -> tuple[PlannedVolume, ...]:
        """Its copies on other disks."""
        return tuple(one for one in self.volumes if one.role == "esp-copy")

    def partition_at(self, device: str) -> tuple[PlannedDisk, PlannedPartition]:
        """Return the partition with the path `device`, and its disk; raises KeyError when there is none."""
        for disk in self.disks:
            for partition in disk.partitions:
                if partition.device == device:
                    return disk, partition
        raise KeyError(device)


def mounts_of_volume(volume: PlannedVolume) -> tuple[PlannedMount, ...]:
    """Return where the clone mounts `volume`: itself and its subvolumes."""

    def one(mount: str, options: str, subvolume: str = "") -> PlannedMount:
        return PlannedMount(
            device=volume.device,
            filesystem=volume.filesystem,
            uuid=volume.uuid,
            mount=mount,
            options=options,
            part_uuid=volume.part_uuid,
            subvolume=subvolume,
            is_kept=volume.is_kept,
        )

    found = [one(volume.mount, volume.options)] if volume.mount else []
    for sub in volume.subvolumes:
        if sub.mount:
            more = () if sub.options in ("", "defaults") else (sub.options,)
            found.append(one(sub.mount, ",".join((f"subvol={sub.name}", *more)), sub.name))
    return tuple(found)


def components(mount: str) -> tuple[str, ...]:
    """Return the names on the way to `mount`; parents sort before their children."""
    return tuple(part for part in mount.split("/") if part)


def partition_path(disk: str, number: int) -> str:
    """Return the device path of partition `number` (from 1) of `disk`.

    A "p" goes in between when the disk name ends in a digit (nvme0n1p1).
    Source: kernel, block/partitions/core.c, add_partition().
    """
    return f"{disk}{'p' if disk[-1].isdigit() else ''}{number}"
