"""Finds out what machine this is: firmware, memory, disks, interfaces, DMI.

Must not change anything, nor judge what it finds.
"""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path

from cloner_agent.blockdevices import Properties, list_disks
from cloner_agent.erase.abilities import ask_abilities
from cloner_agent.host import Runner
from cloner_agent.pci import list_pci
from cloner_core.facts import Dmi, Facts, Firmware, Nic, normalize_mac

log = logging.getLogger(__name__)

EFIVARS = "/sys/firmware/efi/efivars"
_GLOBAL_GUID = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
_ARPHRD_ETHER = 1  # include/uapi/linux/if_arp.h


def probe(
    run: Runner,
    *,
    boot_mac: str = "",
    root: str = "/",
    properties: Properties | None = None,
    disk_names: Callable[[str], bool] | None = None,
    addresses: Callable[[], Mapping[str, tuple[str, ...]]] | None = None,
) -> Facts:
    """Return what this machine is. `root` stands before /sys and /proc; the callables replace udev and psutil."""
    base = Path(root)
    disks = list_disks(run, properties or udev_properties(), root=root, names=disk_names)
    return Facts(
        firmware=Firmware.UEFI if (base / "sys/firmware/efi").is_dir() else Firmware.BIOS,
        arch=platform.machine(),
        memory_bytes=_memory_bytes(base),
        cpu_count=os.cpu_count() or 1,
        kernel_release=platform.release(),
        boot_mac=boot_mac,
        disks=disks,
        nics=_nics(base, (addresses or interface_addresses)()),
        dmi=_dmi(base),
        is_secure_boot=_is_secure_boot(base),
        tpm_major=_tpm_major(base),
        pci=list_pci(root),
        erasing=ask_abilities(run, disks, root=root),
    )


def udev_properties() -> Properties:
    """Return a look-up in udev's database; one that knows nothing when udev is not there."""
    try:
        import pyudev

        context = pyudev.Context()
    except ImportError as error:
        log.warning("no udev, so serials of ATA and SCSI disks are unknown: %s", error)
        return lambda _: {}

    def look_up(name: str) -> Mapping[str, str]:
        try:
            return dict(pyudev.Devices.from_name(context, "block", name).properties)
        except pyudev.DeviceNotFoundError:
            return {}

    return look_up


def interface_addresses() -> Mapping[str, tuple[str, ...]]:
    """Return the addresses of each interface as "10.77.0.12/24"."""
    import ipaddress
    import socket

    import psutil

    found = {}
    for name, entries in psutil.net_if_addrs().items():
        found[name] = tuple(
            str(ipaddress.ip_interface(f"{entry.address}/{entry.netmask}"))
            for entry in entries
            if entry.family == socket.AF_INET and entry.netmask
        )
    return found


def _nics(base: Path, addresses: Mapping[str, tuple[str, ...]]) -> tuple[Nic, ...]:
    net = base / "sys/class/net"
    nics = []
    for path in sorted(net.iterdir()) if net.is_dir() else []:
        # "device" is missing on bridges, bonds, taps and the loopback.
        if _read(path / "type") != str(_ARPHRD_ETHER) or not (path / "device").exists():
            continue
        try:
            mac = normalize_mac(_read(path / "address"))
        except ValueError:
            continue
        driver = path / "device/driver"
        speed = _read(path / "speed")
        vendor, device = _read(path / "device/vendor"), _read(path / "device/device")
        # A virtio NIC hangs below its PCI function, whose ids are the useful ones.
        if "virtio" in str((path / "device").resolve()):
            vendor = _read(path / "device/../vendor") or vendor
            device = _read(path / "device/../device") or device
        nics.append(
            Nic(
                name=path.name,
                mac=mac,
                driver=driver.resolve().name if driver.exists() else "",
                has_carrier=_read(path / "carrier") == "1",
                speed_mbps=int(speed) if speed.isdigit() else 0,
                pci_id=f"{vendor[2:]}:{device[2:]}" if vendor and device else "",
                addresses=addresses.get(path.name, ()),
            )
        )
    return tuple(nics)


def _dmi(base: Path) -> Dmi:
    table = base / "sys/class/dmi/id"
    return Dmi(
        system_uuid=_read(table / "product_uuid").lower(),
        serial=_read(table / "product_serial"),
        vendor=_read(table / "sys_vendor"),
        product=_read(table / "product_name"),
    )


def _memory_bytes(base: Path) -> int:
    for line in _read(base / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def _is_secure_boot(base: Path) -> bool:
    try:
        data = (base / f"sys/firmware/efi/efivars/SecureBoot-{_GLOBAL_GUID}").read_bytes()
    except OSError:
        return False
    # Four bytes of attributes stand before the value: Documentation/filesystems/efivarfs.rst
    return len(data) == 5 and data[4] == 1


def _tpm_major(base: Path) -> int:
    """Return the version of the TPM: Documentation/ABI/stable/sysfs-class-tpm."""
    said = _read(base / "sys/class/tpm/tpm0/tpm_version_major")
    return int(said) if said in ("1", "2") else 0


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""
