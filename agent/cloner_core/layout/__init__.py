"""Layouts: named, versioned descriptions of disks, kept apart from images.

Types and the reading of documents; choosing disks is `selectors`, sizes and commands are `plan`.
"""

from cloner_core.layout.document import layout_document, parse_layout
from cloner_core.layout.types import DiskLayout, Filesystem, Layout, Partition, Selector, Size, Swap

__all__ = [
    "DiskLayout",
    "Filesystem",
    "Layout",
    "Partition",
    "Selector",
    "Size",
    "Swap",
    "layout_document",
    "parse_layout",
]
