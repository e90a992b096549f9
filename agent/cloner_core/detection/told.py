"""What the tools of a machine say of its disks, as texts; the input of a detection.

Must not judge: what the texts mean is `parsing`, what becomes of it `detecting`.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from cloner_core.facts import Disk
from cloner_core.layout import Selector

LSBLK_COLUMNS = "PATH,NAME,TYPE,SIZE"  # its others are those of udev, which may not run or be late
LVS_FIELDS = "vg_name,lv_name,lv_size,segtype,origin,lv_active,stripes"
VGS_FIELDS = "vg_name,vg_extent_size,vg_free,vg_size,vg_exported,vg_missing_pv_count"
PVS_FIELDS = "pv_name,vg_name"
FINDMNT_COLUMNS = "SOURCE,TARGET,FSTYPE,FSROOT"


class ArrayTold(msgspec.Struct, frozen=True):
    """One md array: `mdadm --detail --export`, and what only sysfs tells."""

    export: str
    chunk_bytes: int = 0  # md/chunk_size; 0 for mirrors
    layout: int = 0  # md/layout: 258 is near=2 of raid10 (drivers/md/raid10.c)


class BtrfsTold(msgspec.Struct, frozen=True):
    """One mounted btrfs: `btrfs subvolume list`, the same with -s, and `btrfs subvolume get-default`."""

    subvolumes: str
    snapshots: str = ""
    default: str = ""
    asked: str = ""  # the subvolume at whose mount they were asked, by path from the top; "" at the top itself


class Told(msgspec.Struct, frozen=True):
    """Everything that is asked of a machine."""

    disks: tuple[Disk, ...]
    lsblk: str  # --json --bytes with LSBLK_COLUMNS
    blkid: str  # --probe --output export, of every device that lsblk shows
    arrays: Mapping[str, ArrayTold] = {}  # by path
    logical: str = ""  # lvs --reportformat json --units b --nosuffix with LVS_FIELDS; "" where there is no LVM
    groups: str = ""  # vgs, likewise
    physical: str = ""  # pvs, likewise
    luks: Mapping[str, str] = {}  # path of what is encrypted → cryptsetup luksDump --dump-json-metadata
    btrfs: Mapping[str, BtrfsTold] = {}  # by UUID of the filesystem
    mounts: str = ""  # findmnt --json --list with FINDMNT_COLUMNS
    fstab: bytes = b""
    crypttab: str = ""
    swapfiles: Mapping[str, int] = {}  # path in the tree → size in bytes, of every swap file that is there
    root: str = "/"  # where the tree is mounted that the layout is for


class Excluded(msgspec.Struct, frozen=True):
    """What the layout leaves alone: disks and partitions by path, and disks that are like a selector."""

    devices: tuple[str, ...] = ()
    selectors: tuple[Selector, ...] = ()
