"""What an agent found out about the machine it runs on: the input of the planner and of the hardware fingerprint.

Pure values; the probing itself is `cloner_agent.probe`. Everything here may come from a hostile machine: the bounds
are checked where it is decoded, and hold whatever hardware there is.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

import msgspec
from blake3 import blake3
from msgspec import Meta

from cloner_core.erasing.abilities import EraseAbilities

Text = Annotated[str, Meta(max_length=1024)]
Device = Annotated[str, Meta(pattern=r"^/dev/[A-Za-z0-9][A-Za-z0-9._!:-]{0,62}$")]
Bytes = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Sector = Annotated[int, Meta(ge=512, le=1 << 16, multiple_of=512)]

_PCI_ALIAS = re.compile(r"pci:v0000([0-9A-F]{4})d0000([0-9A-F]{4})")
MAX_PARTITIONS = 256
"""Of one disk: Linux numbers no more of them (DISK_MAX_PARTS, include/linux/blkdev.h)."""


class Firmware(StrEnum):
    """How the machine was started."""

    UEFI = "uefi"
    BIOS = "bios"


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing blkid or wipefs recognises on a device: a table, a filesystem, a member of an array."""

    device: Device  # "/dev/vda2"
    kind: Text  # blkid TYPE or PTTYPE: "ext4", "vfat", "gpt", "linux_raid_member", "LVM2_member"
    uuid: Text = ""  # as blkid prints it; "" where the kind has none
    label: Text = ""
    part_uuid: Text = ""  # GUID of the partition, lower case; "" for a whole disk
    system: Text = ""  # "Debian GNU/Linux 12 (bookworm), host db01"; "" none found, or nobody can look into this kind
    group: Text = (
        ""  # name of the volume group, array, pool or filesystem it is a member of; "" none, or it has no name
    )
    group_uuid: Text = ""  # what tells that group from another of the same name; "" none, or not known


class DiskPartition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of a disk's partition table, as it is now."""

    number: Annotated[int, Meta(ge=1, le=1 << 16)]
    start_bytes: Bytes
    size_bytes: Bytes
    type: Text = ""  # GPT: a GUID in lower case; MBR: "0x83"
    part_uuid: Text = ""  # as PARTUUID= names it: a GUID in lower case, or "1234abcd-02" with an MBR
    name: Text = ""  # GPT only
    is_logical: bool = False  # in the extended partition of an MBR
    is_active: bool = False  # the boot flag of an MBR
    attributes: Text = ""  # of a GPT, as sfdisk writes them: "RequiredPartition GUID:60,63"


class Disk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One whole disk as the running kernel names it; names change from boot to boot, serials do not."""

    path: Device  # "/dev/nvme0n1"
    size_bytes: Bytes
    sector_bytes: Sector = 512  # logical
    physical_sector_bytes: Bytes = 512
    serial: Text = ""
    wwn: Text = ""
    model: Text = ""
    paths: Annotated[
        tuple[Device, ...], Meta(max_length=256)
    ] = ()  # further devices that are this same disk: multipath
    bus: Text = ""  # "virtio", "nvme", "ata", "scsi", "usb"; "" unknown
    by_path: Text = ""  # /dev/disk/by-path name without the directory
    hctl: Text = ""  # SCSI "host:channel:target:lun"; the host's number may change from boot to boot
    controller: Text = ""  # PCI address of what the disk hangs on: "0000:00:1f.2"
    controller_id: Text = ""  # its PCI vendor and device: "8086:2922"
    bay: Text = ""  # "enclosure id/slot" as the enclosure tells, or the name of the PCI slot; "" nobody tells
    is_removable: bool = False
    is_read_only: bool = False
    is_rotational: bool = False
    is_mounted: bool = False  # the disk, a part of it, or what is built on it is mounted or swapped on
    held_by: Annotated[tuple[Text, ...], Meta(max_length=4096)] = ()  # devices built on it now: "md127", "vg0-root"
    table: Text = ""  # "gpt", "dos" (MBR); "" no partition table
    table_id: Text = ""  # GUID in lower case, or "1234abcd" of an MBR
    partitions: Annotated[tuple[DiskPartition, ...], Meta(max_length=MAX_PARTITIONS)] = ()
    signatures: Annotated[tuple[Signature, ...], Meta(max_length=4096)] = ()


class Nic(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One network interface with a hardware address."""

    name: Text
    mac: Text  # lower case, colons
    driver: Text = ""
    has_carrier: bool = False
    speed_mbps: int = 0  # 0 unknown
    pci_id: Text = ""  # "1af4:1000"; "" when not on PCI
    addresses: tuple[str, ...] = ()  # "10.77.0.12/24"


class PciDevice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One controller of disks or network card on PCI, and what of the running kernel drives it."""

    address: Text  # "0000:00:1f.2"
    class_code: Text  # six hex digits, PCI Code and ID Assignment: "010601" is AHCI
    modalias: Text = ""  # what modules.alias is asked for: "pci:v00008086d00002922sv…"
    driver: Text = ""  # "ahci"; "" the kernel has none for it
    modules: Annotated[tuple[Text, ...], Meta(max_length=64)] = ()  # of its driver and of what is beneath; () built in

    @property
    def id(self) -> str:
        """Vendor and device as lspci shows them, "8086:2922"; the address when the modalias does not tell."""
        found = _PCI_ALIAS.match(self.modalias)
        return f"{found[1]}:{found[2]}".lower() if found else self.address

    @property
    def is_storage(self) -> bool:
        """Whether it is a controller of disks; else it is a network card."""
        return self.class_code.startswith("01")


class Dmi(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the firmware says the machine is (SMBIOS type 1); vendors leave parts empty or repeat them."""

    system_uuid: Text = ""  # lower case
    serial: Text = ""
    vendor: Text = ""
    product: Text = ""


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One machine as one boot of the agent saw it."""

    firmware: Firmware
    arch: Text  # "x86_64"
    memory_bytes: Bytes
    cpu_count: Annotated[int, Meta(ge=0, le=1 << 20)]
    kernel_release: Text
    boot_mac: Text  # of the interface the machine netbooted from (BOOTIF); "" when started without a network
    disks: Annotated[tuple[Disk, ...], Meta(max_length=4096)]
    nics: Annotated[tuple[Nic, ...], Meta(max_length=4096)]
    dmi: Dmi = Dmi()
    is_secure_boot: bool = False
    tpm_major: Annotated[int, Meta(ge=0, le=255)] = 0  # 2: it has a TPM 2.0; 0: none that Linux can use
    pci: Annotated[tuple[PciDevice, ...], Meta(max_length=4096)] = ()  # () too where there is no PCI
    erasing: Annotated[tuple[EraseAbilities, ...], Meta(max_length=4096)] = ()  # how the disks can be erased


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
