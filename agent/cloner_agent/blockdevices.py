"""Finds the whole disks of the machine in sysfs, with serials from udev and signatures from wipefs.

Must not write to a device, nor choose one.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from cloner_agent.host import Runner, ToolError
from cloner_core.facts import Disk, Signature
from cloner_core.systems import system_name

log = logging.getLogger(__name__)

Properties = Callable[[str], Mapping[str, str]]
"""Looks up the udev properties of a device by kernel name ("vda"); empty when udev does not know it."""

# Not disks: memory, loops, optical and floppy drives, network blocks, devices built from others.
_NOT_DISKS = re.compile(r"(ram|zram|loop|sr|fd|nbd|dm-|md|drbd|zd)[0-9]|mtdblock|mmcblk[0-9]+(boot|rpmb)")
_SECTOR_BYTES = 512  # sysfs counts in these whatever the disk's own are: Documentation/block/stat.rst
_TOOL_S = 60.0
_EXT = ("ext2", "ext3", "ext4")
_LOOK_S, _LOOK_CHARACTERS = 5.0, 4096
_LOOKS = 8  # filesystems of a disk that are looked into; a disk may have 128, each made to keep us waiting


def list_disks(
    run: Runner, properties: Properties, *, root: str = "/", names: Callable[[str], bool] | None = None
) -> tuple[Disk, ...]:
    """Return every whole disk, by name; `names` (of the kernel name) replaces the rule of what is a disk.

    `root` stands before /sys and /proc.
    """
    base = Path(root)
    is_disk = names or (lambda name: not _NOT_DISKS.match(name))
    busy = busy_devices(root)
    block = base / "sys/block"
    found = sorted(path.name for path in block.iterdir() if is_disk(path.name)) if block.is_dir() else []
    return tuple(_disk(block / name, properties(name), busy, run) for name in found)


def busy_devices(root: str = "/") -> frozenset[str]:
    """Return "major:minor" and path of every device that is mounted or swapped on."""
    base = Path(root)
    busy = set()
    for line in _text(base / "proc/self/mountinfo").splitlines():
        # 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw: proc_pid_mountinfo(5)
        fields = line.split()
        busy.add(fields[2])
        if "-" in fields:
            busy.add(fields[fields.index("-") + 2])
    for line in _text(base / "proc/swaps").splitlines()[1:]:
        busy.add(line.split()[0])
    return frozenset(busy)


def partitions_of(disk: Path) -> list[Path]:
    """Return the sysfs directories of a disk's partitions, by number."""
    found = [path.parent for path in disk.glob("*/partition")]
    return sorted(found, key=lambda path: int(_text(path / "partition") or "0"))


def _disk(path: Path, udev: Mapping[str, str], busy: frozenset[str], run: Runner) -> Disk:
    device = f"/dev/{path.name}"
    real = str(path.resolve())
    bus = _bus(path.name, real, udev)
    size_bytes = _number(path / "size") * _SECTOR_BYTES
    members = [path, *partitions_of(path)]
    return Disk(
        path=device,
        size_bytes=size_bytes,
        sector_bytes=_number(path / "queue/logical_block_size") or _SECTOR_BYTES,
        physical_sector_bytes=_number(path / "queue/physical_block_size") or _SECTOR_BYTES,
        # Drivers pad: virtio and nvme answer in sysfs itself, ATA and SCSI only through udev's rules.
        serial=(
            udev.get("ID_SERIAL_SHORT")
            or _text(path / "serial")
            or _text(path / "device/serial")
            or (udev.get("ID_SERIAL", "") if bus == "virtio" else "")
        ).strip(),
        wwn=(udev.get("ID_WWN_WITH_EXTENSION") or udev.get("ID_WWN") or _text(path / "wwid")).strip(),
        model=(udev.get("ID_MODEL", "").replace("_", " ") or _text(path / "device/model")).strip(),
        bus=bus,
        by_path=udev.get("ID_PATH", ""),
        # The kernel calls a slot for SD cards fixed; the card in it is not (drivers/mmc/core/bus.c, "type").
        is_removable=_number(path / "removable") == 1 or _text(path / "device/type") == "SD",
        is_read_only=_number(path / "ro") == 1,
        is_rotational=_number(path / "queue/rotational") == 1,
        is_mounted=any(_is_busy(member, busy) for member in members),
        signatures=_signatures(run, [f"/dev/{member.name}" for member in members]) if size_bytes else (),
    )


def _is_busy(path: Path, busy: frozenset[str]) -> bool:
    holders = path / "holders"
    return _text(path / "dev") in busy or f"/dev/{path.name}" in busy or (holders.is_dir() and any(holders.iterdir()))


def _bus(name: str, real: str, udev: Mapping[str, str]) -> str:
    """Name the bus; the path in sysfs comes first, because a USB bridge calls its disk "ata" in udev."""
    if "/usb" in real:
        return "usb"
    if "/virtio" in real and "/host" not in real:
        return "virtio"
    if name.startswith("nvme"):
        return "nvme"
    if name.startswith("mmcblk"):
        return "mmc"
    return "ata" if udev.get("ID_BUS") == "ata" or re.search(r"/ata\d+/", real) else udev.get("ID_BUS", "scsi")


def _signatures(run: Runner, devices: list[str]) -> tuple[Signature, ...]:
    """Ask wipefs, which lists every signature where blkid stops at two; it writes nothing without --all."""
    try:
        listed = run(("wipefs", "--json", "--output", "DEVICE,TYPE,UUID,LABEL", *devices), timeout_s=_TOOL_S).stdout
    except ToolError as error:
        log.warning("%s: signatures unknown: %s", devices[0], error)
        return ()
    part_uuids = _part_uuids(run, devices[0]) if len(devices) > 1 else {}
    found: dict[tuple[str, str, str], Signature] = {}
    looked_into: list[str] = []
    for entry in json.loads(listed or "{}").get("signatures", []):
        device = entry["device"] if entry["device"].startswith("/") else f"/dev/{entry['device']}"
        signature = Signature(
            device=device,
            kind=entry["type"] or "",
            uuid=entry["uuid"] or "",
            label=entry["label"] or "",
            part_uuid=part_uuids.pop(device, "") if device in part_uuids else "",
        )
        is_new = (device, signature.kind, signature.uuid) not in found
        if is_new and signature.kind in _EXT and len(looked_into) < _LOOKS:
            looked_into.append(device)
            signature = msgspec.structs.replace(signature, system=_system(run, device))
        # GPT shows twice, at both ends of the disk, and FAT three times; the first has the partition's GUID.
        found.setdefault((device, signature.kind, signature.uuid), signature)
    # A partition without a known content still has its GUID, and the guard must see it.
    rest = [Signature(device=device, kind="", part_uuid=guid) for device, guid in part_uuids.items() if guid]
    return (*found.values(), *rest)


def _system(run: Runner, device: str) -> str:
    """Read what names the system on an ext filesystem; debugfs mounts nothing and opens the device for reading."""
    told = []
    for path in ("/usr/lib/os-release", "/etc/hostname"):
        try:
            told.append(run(("debugfs", "-R", f"cat {path}", device), timeout_s=_LOOK_S).stdout[:_LOOK_CHARACTERS])
        except ToolError as error:
            log.debug("%s: what is on it is not known: %s", device, error)
            return ""
    return system_name(*told)


def _part_uuids(run: Runner, disk: str) -> dict[str, str]:
    """Return GUID by partition; none when the disk has no table that sfdisk reads."""
    try:
        listed = run(("sfdisk", "--json", disk), timeout_s=_TOOL_S).stdout
    except ToolError:
        return {}
    partitions = json.loads(listed or "{}").get("partitiontable", {}).get("partitions", [])
    return {entry["node"]: entry.get("uuid", "").lower() for entry in partitions}


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _number(path: Path) -> int:
    text = _text(path)
    return int(text) if text.isdigit() else 0
