"""The types of a layout. Sizes are bytes, so one layout serves 512-byte and 4096-byte sectors.

What lies on what is told by name: a partition (or a whole disk) is a member of an array or of a volume group, and those
name their own content. Must not know a machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec


class _Type(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of everything in a layout."""


class Match(_Type, frozen=True):
    """What a text must be like: shell patterns (fnmatch, case-sensitive)."""

    any: tuple[str, ...] = ()  # at least one of these; () = whatever it is
    none: tuple[str, ...] = ()  # and none of these


class Pick(_Type, frozen=True):
    """One of several disks that match alike: the `nth` of exactly `of` disks in the order of `by`."""

    nth: int  # from 1
    of: int  # another number of matching disks is refused
    by: Literal["path", "bay", "serial", "size", "wwn"]


class Selector(_Type, frozen=True):
    """Which disk is meant; all given fields must hold, and exactly one disk of the node must match."""

    serial: str | Match = ""  # a text stands for Match(any=(text,)); "" = any
    model: str | Match = ""
    size_min_bytes: int = 0
    size_max_bytes: int = 0  # 0 = no limit
    wwn: str | Match = ""
    bus: str | Match = ""  # "nvme", "virtio", "ata", "scsi", "mmc"
    path: str | Match = ""  # name in /dev/disk/by-path
    controller: str | Match = ""  # PCI address "0000:00:1f.2" or vendor and device "8086:2922"
    bay: str | Match = ""  # slot of the enclosure
    rotational: bool | None = None  # None = whichever
    sector_bytes: int = 0  # logical; 0 = any
    pick: Pick | None = None  # None: no more than one disk may match


class Size(_Type, frozen=True):
    """A share of what is left over between two bounds; min == max is a fixed size."""

    min_bytes: int
    max_bytes: int = 0  # 0 = no limit
    weight: int = 0  # share of the space left over; 0 = stay at min


class Subvolume(_Type, frozen=True):
    """A subvolume of a btrfs filesystem, and where the clone mounts it."""

    name: str  # "@", "@home", "var/log": path from the top of the filesystem
    mount: str = ""  # absolute path in the clone; "" = made, not mounted
    options: str = "defaults"


class Filesystem(_Type, frozen=True, tag_field="type", tag="filesystem"):
    """A filesystem made new, and where the clone mounts it."""

    kind: Literal["ext4", "xfs", "btrfs", "vfat"]
    mount: str  # absolute path in the clone: "/", "/boot/efi"; "" only for btrfs of which subvolumes are mounted
    label: str = ""
    options: str = "defaults"  # fourth field of fstab(5)
    source_uuid: str = ""  # what the golden node's fstab calls it; rewritten to the new one
    subvolumes: tuple[Subvolume, ...] = ()  # of btrfs


class Swap(_Type, frozen=True, tag_field="type", tag="swap"):
    """Swap space made new."""

    label: str = ""
    source_uuid: str = ""


class ArrayMember(_Type, frozen=True, tag_field="type", tag="raid"):
    """A member of the md array of that id."""

    array: str


class PhysicalVolume(_Type, frozen=True, tag_field="type", tag="lvm"):
    """A physical volume of the volume group of that name."""

    group: str


class Unlock(_Type, frozen=True):
    """How a clone comes by the key of an encrypted device at boot."""

    way: Literal["tpm2", "passphrase", "random"]
    pcrs: tuple[int, ...] = ()  # of tpm2: registers that must be as they were; () = the TPM of this machine alone


class Luks(_Type, frozen=True, tag_field="type", tag="luks"):
    """A LUKS2 container made new for each node, with what lies in it."""

    name: str  # of the mapping: /dev/mapper/NAME
    unlock: Unlock
    content: Filesystem | Swap | PhysicalVolume
    source_uuid: str = ""


class EspCopy(_Type, frozen=True, tag_field="type", tag="esp-copy"):
    """A copy of the ESP on another disk, kept in step with it, with a boot entry of its own."""

    label: str = ""


class Kept(_Type, frozen=True, tag_field="type", tag="kept"):
    """What is there stays: the partition keeps number, place, identifiers and content."""

    number: int  # of the partition in the table as it is
    mount: str = ""  # where the clone mounts the filesystem that is there; "" = nowhere
    options: str = "defaults"


class Nothing(_Type, frozen=True, tag_field="type", tag="none"):
    """Not formatted: a BIOS boot partition, or room for later."""


Role = Literal["esp", "bios-boot", "swap", "root", "data", "raid", "lvm", "luks"]
Content = Filesystem | Swap | ArrayMember | PhysicalVolume | Luks | EspCopy | Kept | Nothing
Stacked = Filesystem | Swap | PhysicalVolume | Luks
"""What an array or a logical volume may carry."""


class Partition(_Type, frozen=True):
    """One partition, in the order given."""

    role: Role
    size: Size
    content: Content
    label: str = ""  # GPT partition name, at most 36 UTF-16 units
    is_logical: bool = False  # MBR: inside the extended partition
    is_active: bool = False  # MBR: the boot flag


class DiskLayout(_Type, frozen=True):
    """One disk of a layout."""

    id: str  # how the plan, the log and the receipt call it: "system"
    select: Selector
    partitions: tuple[Partition, ...] = ()
    table: Literal["gpt", "mbr", "none"] = "gpt"
    content: Content | None = None  # of the whole disk, where the table is "none"; None where there is a table


class Array(_Type, frozen=True):
    """An md array over its members, which name it."""

    id: str
    level: Literal["raid0", "raid1", "raid5", "raid6", "raid10"]
    content: Stacked
    metadata: Literal["1.0", "1.2"] = "1.2"
    chunk_kib: int = 512  # of striped levels


class LogicalVolume(_Type, frozen=True):
    """One volume of a group, in the order given."""

    name: str
    size: Size
    content: Filesystem | Swap | Luks


class VolumeGroup(_Type, frozen=True):
    """An LVM volume group over its physical volumes, which name it."""

    name: str
    volumes: tuple[LogicalVolume, ...]
    extent_mib: int = 4


class SwapFile(_Type, frozen=True):
    """A swap file made new."""

    path: str  # absolute in the clone
    size_bytes: int


class Layout(_Type, frozen=True):
    """Everything a deploy makes on the disks of a node."""

    name: str
    disks: tuple[DiskLayout, ...]
    format: Literal[1] = 1
    arrays: tuple[Array, ...] = ()
    groups: tuple[VolumeGroup, ...] = ()
    swapfiles: tuple[SwapFile, ...] = ()
    untouched: tuple[Selector, ...] = ()  # disks that must never be chosen, whatever the selectors above say

    def contents(self) -> Iterator[tuple[str, Content]]:
        """Give (path in the document, content) of all that is made, what lies in a container after the container."""
        for index, disk in enumerate(self.disks):
            path = f"disks[{index}]"
            if disk.content is not None:
                yield from _nested(f"{path}.content", disk.content)
            for number, partition in enumerate(disk.partitions):
                yield from _nested(f"{path}.partitions[{number}].content", partition.content)
        for index, array in enumerate(self.arrays):
            yield from _nested(f"arrays[{index}].content", array.content)
        for index, group in enumerate(self.groups):
            for number, volume in enumerate(group.volumes):
                yield from _nested(f"groups[{index}].volumes[{number}].content", volume.content)

    def filesystems(self) -> Iterator[tuple[str, Filesystem]]:
        """Give (path in the document, filesystem) of every filesystem that is made."""
        for path, content in self.contents():
            if isinstance(content, Filesystem):
                yield path, content


def _nested(path: str, content: Content) -> Iterator[tuple[str, Content]]:
    yield path, content
    if isinstance(content, Luks):
        yield f"{path}.content", content.content


def mounts_of(content: Content) -> tuple[str, ...]:
    """Return where the clone mounts `content`: a filesystem and its subvolumes, or what is kept."""
    match content:
        case Filesystem():
            found = (content.mount, *(one.mount for one in content.subvolumes))
        case Kept():
            found = (content.mount,)
        case _:
            found = ()
    return tuple(mount for mount in found if mount)
