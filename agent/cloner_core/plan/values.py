"""What a plan is made of: disks, partitions and steps with every identifier chosen."""

from __future__ import annotations

import msgspec

from cloner_core.facts import Disk
from cloner_core.steps import Step


class Contents(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a version puts on one filesystem of the layout."""

    mount: str  # "/": the longest mount point of the layout that is a prefix of the files
    allocated_bytes: int  # data ranges of all files, each rounded up to 4096; hard links once
    inodes: int  # of every kind
    source_uuid: str = ""  # identifier the filesystem had on the golden node; "" unknown


class PlannedPartition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One partition with every identifier chosen."""

    number: int  # from 1
    device: str  # "/dev/nvme0n1p1"
    role: str  # esp, swap, root, data
    type_guid: str  # lower case
    part_uuid: str  # lower case
    start_sectors: int  # logical sectors of the disk
    size_sectors: int
    filesystem: str  # "vfat", "ext4", "swap"
    uuid: str  # as blkid prints it: lower-case UUID; "1A2B-3C4D" for vfat
    label: str = ""  # of the filesystem
    name: str = ""  # of the partition, in the table
    mount: str = ""  # path in the clone; "" for swap
    options: str = ""  # fourth field of fstab(5)
    source_uuids: tuple[str, ...] = ()  # what the image calls it


class PlannedDisk(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One chosen disk and its new table."""

    id: str  # of the layout
    disk: Disk
    table_guid: str
    partitions: tuple[PlannedPartition, ...]


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Everything a deploy will do, in order, all identifiers chosen."""

    node: str
    image: str  # "debian:3"
    version_digest: str
    layout: str
    disks: tuple[PlannedDisk, ...]
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()  # worth an admin's eye; nothing is refused for them

    @property
    def partitions(self) -> tuple[PlannedPartition, ...]:
        """All partitions of all disks, in layout order."""
        return tuple(partition for disk in self.disks for partition in disk.partitions)

    @property
    def mounts(self) -> tuple[PlannedPartition, ...]:
        """The mounted partitions, parents before children."""
        return tuple(sorted((p for p in self.partitions if p.mount), key=lambda p: _components(p.mount)))

    @property
    def root(self) -> PlannedPartition:
        """The partition mounted at "/"."""
        return next(p for p in self.partitions if p.mount == "/")

    @property
    def esp(self) -> PlannedPartition | None:
        """The first EFI system partition; None when the layout has none."""
        return next((p for p in self.partitions if p.role == "esp"), None)


def _components(mount: str) -> tuple[str, ...]:
    return tuple(part for part in mount.split("/") if part)
