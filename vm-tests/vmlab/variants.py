"""Variants of hardware and layout that a clone must boot from, and what it must look like from inside.

Values only; who deploys them is `./run soak disks` and its sample among the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vmlab.disk import GIB, Bus
from vmlab.firmware import Firmware
from vmlab.golden_debian import ESP_SERIAL, ROOT_UUID, SWAP_UUID

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Drive:
    """One blank disk of the machine."""

    serial: str
    size_bytes: int = 4 * GIB
    bus: Bus = Bus.VIRTIO
    sector_bytes: int = 512


@dataclass(frozen=True, slots=True)
class Variant:
    """One row of the matrix."""

    name: str
    drives: tuple[Drive, ...]
    layout: Document
    mounts: Mapping[str, str]  # mount point → file system, as the booted clone must show
    says: Mapping[str, str] = field(default_factory=dict)  # command → regular expression of what it prints
    pulled: str = ""  # serial of a disk that is taken away afterwards; the clone must boot without it
    firmware: Firmware = Firmware.UEFI


def esp(size: str = "256MiB") -> Document:
    """Return an ESP that stands for the golden node's."""
    content = {"type": "filesystem", "kind": "vfat", "mount": "/boot/efi", "source_uuid": ESP_SERIAL}
    return {"role": "esp", "size": size, "content": content}


ESP_COPY: Document = {"role": "esp", "size": "256MiB", "content": {"type": "esp-copy"}}


def filesystem(kind: str, mount: str, **more: Any) -> Document:
    """Return a file system; the root stands for the golden node's."""
    source = {"source_uuid": ROOT_UUID} if mount == "/" else {}
    return {"type": "filesystem", "kind": kind, "mount": mount, **source, **more}


SWAP: Document = {"type": "swap", "source_uuid": SWAP_UUID}


def part(size: str, content: Document, **more: Any) -> Document:
    """Return a partition."""
    return {"size": size, "content": content, **more}


def disk(serial: str, *partitions: Document, table: str = "gpt") -> Document:
    """Return a disk of a layout, told by its serial."""
    return {"id": serial.lower(), "select": {"serial": serial}, "table": table, "partitions": list(partitions)}


def _layout(*disks: Document, **more: Any) -> Document:
    return {"disks": list(disks), **more}


def _plain(serial: str, kind: str = "ext4") -> Document:
    return _layout(disk(serial, esp(), part("256MiB", SWAP), part("rest", filesystem(kind, "/"))))


_RAID = {"type": "raid", "array": "system"}
_BOOT = {"type": "raid", "array": "boot"}

UEFI_PLAIN = Variant("uefi-plain", (Drive("ONE"),), _plain("ONE"), {"/": "ext4", "/boot/efi": "vfat"})
RAID1_LVM = Variant(
    "raid1-lvm",
    (Drive("ONE"), Drive("TWO")),
    _layout(
        disk("ONE", esp(), part("512MiB", _BOOT), part("rest", _RAID)),
        disk("TWO", ESP_COPY, part("512MiB", _BOOT), part("rest", _RAID)),
        arrays=[
            {"id": "boot", "level": "raid1", "metadata": "1.0", "content": filesystem("ext4", "/boot")},
            {"id": "system", "level": "raid1", "content": {"type": "lvm", "group": "vg0"}},
        ],
        groups=[
            {
                "name": "vg0",
                "volumes": [
                    {"name": "root", "size": "1536MiB", "content": filesystem("ext4", "/")},
                    {"name": "swap", "size": "128MiB", "content": SWAP},
                    {"name": "var", "size": "rest", "content": filesystem("xfs", "/var")},
                ],
            }
        ],
    ),
    {"/": "ext4", "/boot": "ext4", "/boot/efi": "vfat", "/var": "xfs"},
    {
        "cat /proc/mdstat": r"(?s)raid1.*\[UU\].*raid1.*\[UU\]",
        "lvs --noheadings -o vg_name,lv_name": r"(?s)vg0\s+root.*vg0\s+swap.*vg0\s+var",
    },
    pulled="ONE",
)
BTRFS = Variant(
    "btrfs-subvolumes",
    (Drive("ONE"),),
    _layout(
        disk(
            "ONE",
            esp(),
            part(
                "rest",
                {
                    "type": "filesystem",
                    "kind": "btrfs",
                    "source_uuid": ROOT_UUID,
                    "subvolumes": [
                        {"name": "@", "mount": "/", "options": "compress=zstd:1"},
                        {"name": "@var", "mount": "/var"},
                        {"name": "@home", "mount": "/home"},
                        {"name": "@swap", "mount": "/swap"},
                    ],
                },
            ),
        ),
        swapfiles=[{"path": "/swap/swapfile", "size": "64MiB"}],
    ),
    {"/": "btrfs", "/var": "btrfs", "/home": "btrfs", "/boot/efi": "vfat"},
    {
        "btrfs subvolume list /": r"(?s)path @\n.*path @home\n.*path @var",
        "findmnt -no OPTIONS /var": r"subvol=/@var",
        "cat /proc/swaps": r"/swap/swapfile",
    },
)
SEPARATE = Variant(
    "usr-var-home-apart",
    (Drive("ONE"),),
    _layout(
        disk("ONE", esp(), part("512MiB", filesystem("ext4", "/boot")), part("rest", {"type": "lvm", "group": "vg0"})),
        groups=[
            {
                "name": "vg0",
                "volumes": [
                    {"name": "root", "size": "512MiB", "content": filesystem("ext4", "/")},
                    {"name": "usr", "size": "1GiB", "content": filesystem("ext4", "/usr")},
                    {"name": "var", "size": "512MiB", "content": filesystem("xfs", "/var")},
                    {"name": "home", "size": "rest", "content": filesystem("xfs", "/home")},
                ],
            }
        ],
    ),
    {"/": "ext4", "/usr": "ext4", "/var": "xfs", "/home": "xfs", "/boot": "ext4"},
)
NVME_4KN = Variant(
    "nvme-4kn",
    (Drive("ONE", bus=Bus.NVME, sector_bytes=4096),),
    _layout(disk("ONE", esp("300MiB"), part("256MiB", SWAP), part("rest", filesystem("xfs", "/")))),
    {"/": "xfs", "/boot/efi": "vfat"},
    {"cat /sys/block/nvme0n1/queue/logical_block_size": "^4096"},
)
HALF = Variant("half-as-large", (Drive("ONE", 2 * GIB),), _plain("ONE"), {"/": "ext4"})
TWICE = Variant(
    "twice-as-large", (Drive("ONE", 8 * GIB),), _plain("ONE"), {"/": "ext4"}, {"df -BM --output=size /": r"\b7\d{3}M"}
)
RAID10 = Variant(
    "raid10",
    tuple(Drive(serial, 2 * GIB) for serial in ("ONE", "TWO", "THREE", "FOUR")),
    _layout(
        disk("ONE", esp(), part("rest", _RAID)),
        *(disk(serial, ESP_COPY, part("rest", _RAID)) for serial in ("TWO", "THREE", "FOUR")),
        arrays=[{"id": "system", "level": "raid10", "content": filesystem("xfs", "/")}],
    ),
    {"/": "xfs"},
    {"cat /proc/mdstat": r"raid10.*\n.*\[UUUU\]"},
    pulled="TWO",
)

BIOS_MBR = Variant(
    "bios-mbr",
    (Drive("ONE"),),
    _layout(
        disk(
            "ONE",
            part("512MiB", filesystem("ext4", "/boot"), active=True),
            part("rest", filesystem("ext4", "/")),
            part("128MiB", SWAP, logical=True),
            part("512MiB", filesystem("xfs", "/home"), logical=True),
            table="mbr",
        )
    ),
    {"/": "ext4", "/boot": "ext4", "/home": "xfs"},
    {"test -d /sys/firmware/efi && echo efi || echo bios": "^bios", "findmnt -no SOURCE /home": "vda6"},
    firmware=Firmware.BIOS,
)
BIOS_GPT = Variant(
    "bios-gpt",
    (Drive("ONE"), Drive("TWO")),
    _layout(
        *(
            disk(serial, {"role": "bios-boot", "size": "1MiB", "content": {"type": "none"}}, part("rest", _RAID))
            for serial in ("ONE", "TWO")
        ),
        arrays=[{"id": "system", "level": "raid1", "content": filesystem("ext4", "/")}],
    ),
    {"/": "ext4"},
    {"cat /proc/mdstat": r"(?s)raid1.*\[UU\]"},
    pulled="ONE",
    firmware=Firmware.BIOS,
)

VARIANTS = (UEFI_PLAIN, RAID1_LVM, BTRFS, SEPARATE, NVME_4KN, HALF, TWICE, RAID10, BIOS_MBR, BIOS_GPT)
