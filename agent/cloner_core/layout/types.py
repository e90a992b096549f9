"""The types of a layout. Sizes are bytes, so one layout serves 512-byte and 4096-byte sectors."""

from __future__ import annotations

from typing import Literal

import msgspec


class Selector(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which disk is meant; all given fields must hold, and exactly one disk of the node must match."""

    serial: str = ""  # shell pattern (fnmatch, case-sensitive); "" = any
    model: str = ""  # shell pattern
    size_min_bytes: int = 0
    size_max_bytes: int = 0  # 0 = no limit


class Size(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A share of what is left on the disk between two bounds; min == max is a fixed size."""

    min_bytes: int
    max_bytes: int = 0  # 0 = no limit
    weight: int = 0  # share of the space left over; 0 = stay at min


class Filesystem(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="type",
    tag="filesystem",
):
    """A filesystem made new, and where the clone mounts it."""

    kind: Literal["ext4", "vfat"]
    mount: str  # absolute path in the clone: "/", "/boot/efi"
    label: str = ""
    options: str = "defaults"  # fourth field of fstab(5)
    source_uuid: str = ""  # what the golden node's fstab calls it; rewritten to the new one


class Swap(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="type", tag="swap"):
    """Swap space made new."""

    label: str = ""
    source_uuid: str = ""


class Partition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One partition, in the order given."""

    role: Literal["esp", "swap", "root", "data"]
    size: Size
    content: Filesystem | Swap
    label: str = ""  # GPT partition name, at most 36 UTF-16 units


class DiskLayout(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One disk of a layout."""

    id: str  # how the plan, the log and the receipt call it: "system"
    select: Selector
    partitions: tuple[Partition, ...]
    table: Literal["gpt"] = "gpt"


class Layout(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Everything a deploy makes on the disks of a node."""

    name: str
    disks: tuple[DiskLayout, ...]
    format: Literal[1] = 1
