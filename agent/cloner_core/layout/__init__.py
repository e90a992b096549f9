"""Layouts: named, versioned descriptions of disks, kept apart from images.

Types and the reading of documents; choosing disks is `selectors`, sizes and commands are `plan`.
"""

from cloner_core.layout.comparing import layout_differences
from cloner_core.layout.document import layout_document, parse_layout
from cloner_core.layout.stacking import mapper_name
from cloner_core.layout.types import (
    Array,
    ArrayMember,
    Content,
    DiskLayout,
    EspCopy,
    Filesystem,
    Kept,
    Layout,
    LogicalVolume,
    Luks,
    Match,
    Nothing,
    Partition,
    PhysicalVolume,
    Pick,
    Selector,
    Size,
    Subvolume,
    Swap,
    SwapFile,
    Unlock,
    VolumeGroup,
    mounts_of,
)

__all__ = [
    "Array",
    "ArrayMember",
    "Content",
    "DiskLayout",
    "EspCopy",
    "Filesystem",
    "Kept",
    "Layout",
    "LogicalVolume",
    "Luks",
    "Match",
    "Nothing",
    "Partition",
    "PhysicalVolume",
    "Pick",
    "Selector",
    "Size",
    "Subvolume",
    "Swap",
    "SwapFile",
    "Unlock",
    "VolumeGroup",
    "layout_differences",
    "layout_document",
    "mapper_name",
    "mounts_of",
    "parse_layout",
]
