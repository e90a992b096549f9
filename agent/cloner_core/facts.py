"""What an agent found out about the machine it runs on: the input of the planner and of the hardware fingerprint.

Pure values; the probing itself is `cloner_agent.probe`. Everything here may come from a hostile machine.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec
from blake3 import blake3


class Firmware(StrEnum):
    """How the machine was started."""

    UEFI = "uefi"
    BIOS = "bios"


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing blkid or wipefs recognises on a device: a table, a filesystem, a member of an array."""

    device: str  # "/dev/vda2"
    kind: str  # blkid TYPE or PTTYPE: "ext4", "vfat", "gpt", "linux_raid_member", "LVM2_member"
    uuid: str = ""  # as blkid prints it; "" where the kind has none
    label: str = ""
    part_uuid: str = ""  # GUID of the partition, lower case; "" for a whole disk


class Disk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One whole disk as the running kernel names it; names change from boot to boot, serials do not."""

    path: str  # "/dev/nvme0n1"
    size_bytes: int
    sector_bytes: int = 512  # logical
    physical_sector_bytes: int = 512
    serial: str = ""
    wwn: str = ""
    model: str = ""
    bus: str = ""  # "virtio", "nvme", "ata", "scsi", "usb"; "" unknown
    by_path: str = ""  # /dev/disk/by-path name without the directory
    is_removable: bool = False
    is_read_only: bool = False
    is_rotational: bool = False
    is_mounted: bool = False  # the disk or a part of it is mounted, swapped on or held by another device
    signatures: tuple[Signature, ...] = ()


class Nic(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One network interface with a hardware address."""

    name: str
    mac: str  # lower case, colons
    driver: str = ""
    has_carrier: bool = False
    speed_mbps: int = 0  # 0 unknown
    pci_id: str = ""  # "1af4:1000"; "" when not on PCI
    addresses: tuple[str, ...] = ()  # "10.77.0.12/24"


class Dmi(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the firmware says the machine is (SMBIOS type 1); vendors leave parts empty or repeat them."""

    system_uuid: str = ""  # lower case
    serial: str = ""
    vendor: str = ""
    product: str = ""


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One machine as one boot of the agent saw it."""

    firmware: Firmware
    arch: str  # "x86_64"
    memory_bytes: int
    cpu_count: int
    kernel_release: str
    boot_mac: str  # of the interface the machine netbooted from (BOOTIF); "" when started without a network
    disks: tuple[Disk, ...]
    nics: tuple[Nic, ...]
    dmi: Dmi = Dmi()
    is_secure_boot: bool = False


def normalize_mac(mac: str) -> str:
    """Return `mac` in lower case with colons; accepts colons, hyphens, dots or nothing between the digits.

    Raises ValueError when it is not 12 hexadecimal digits.
    """
    digits = "".join(c for c in mac.lower() if c not in ":-.")
    if len(digits) != 12 or any(c not in "0123456789abcdef" for c in digits):
        raise ValueError(f"'{mac}' is not a MAC address: want six bytes in hexadecimal, as 52:54:00:12:34:56")
    return ":".join(digits[i : i + 2] for i in range(0, 12, 2))


def fingerprint(facts: Facts) -> str:
    """Return the hardware fingerprint of a machine: 32 hex digits over what neither a reboot nor a disk swap changes.

    Covers the DMI identity and the hardware addresses; disks are left out because they are replaced in service.
    """
    parts = [facts.arch, facts.dmi.system_uuid, facts.dmi.serial, facts.dmi.vendor, facts.dmi.product]
    parts += sorted({nic.mac for nic in facts.nics})
    return blake3("\x1f".join(parts).encode(), derive_key_context="cloner 2026 hardware fingerprint").hexdigest(16)
