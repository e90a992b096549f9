"""Finds the whole disks of the machine in sysfs, with serials from udev and what lies on them.

Must not write to a device, nor choose one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from cloner_agent.host import Runner
from cloner_agent.multipath import as_one
from cloner_agent.signatures import read_signatures, with_part_uuids, with_volume_groups
from cloner_agent.tables import Table, read_table
from cloner_core.facts import Disk

Properties = Callable[[str], Mapping[str, str]]
"""Looks up the udev properties of a device by kernel name ("vda"); empty when udev does not know it."""

# Not disks: memory, loops, optical and floppy drives, network blocks, devices built from others.
_NOT_DISKS = re.compile(r"(ram|zram|loop|sr|fd|nbd|dm-|md|drbd|zd|bcache)[0-9]|mtdblock|mmcblk[0-9]+(boot|rpmb)")
_SECTOR_BYTES = 512  # sysfs counts in these whatever the disk's own are: Documentation/block/stat.rst
_PCI_ADDRESS = re.compile(
    r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]"
)  # a domain behind Intel's VMD has five digits
_HCTL = re.compile(r"\d+:\d+:\d+:\d+")


def list_disks(
    run: Runner, properties: Properties, *, root: str = "/", names: Callable[[str], bool] | None = None
) -> tuple[Disk, ...]:
    """Return every whole disk once, by name; `names` (of the kernel name) replaces the rule of what is a disk.

    `root` stands before /sys and /proc.
    """
    base = Path(root)
    is_disk = names or (lambda name: not _NOT_DISKS.match(name))
    busy = busy_devices(root)
    block = base / "sys/block"
    found = sorted(path.name for path in block.iterdir() if is_disk(path.name)) if block.is_dir() else []
    # A path of a multipath NVMe namespace has an entry here and no device: drivers/nvme/host/multipath.c.
    shown = [block / name for name in found if not _number(block / name / "hidden")]
    states = {f"/dev/{path.name}": _text(path / "device/access_state") for path in shown}
    disks = as_one([_disk(base, path, properties(path.name), busy) for path in shown], states)
    return with_volume_groups(run, [_with_contents(run, block, disk) for disk in disks])


def busy_devices(root: str = "/") -> frozenset[str]:
    """Return "major:minor", name or path of every device that is mounted or swapped on."""
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
    # A btrfs on several devices is mounted from one of them, as far as mountinfo tells.
    busy.update(f"/dev/{path.name}" for path in base.glob("sys/fs/btrfs/*/devices/*"))
    return frozenset(busy)


def partitions_of(disk: Path) -> list[Path]:
    """Return the sysfs directories of a disk's partitions, by number."""
    found = [path.parent for path in disk.glob("*/partition")]
    return sorted(found, key=lambda path: int(_text(path / "partition") or "0"))


def holders_of(base: Path, name: str) -> list[str]:
    """Return the kernel names of what is built on the device `name` right now: "md127", "dm-3"."""
    directory = base / "sys/class/block" / name / "holders"
    return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []


def all_holders_of(base: Path, names: list[str]) -> list[str]:
    """Return what is built on the devices `names`, on what is built on them, and so on; the nearest first."""
    found: dict[str, None] = {}
    todo = list(names)
    while todo:
        new = [holder for holder in holders_of(base, todo.pop(0)) if holder not in found]
        found.update(dict.fromkeys(new))
        todo += new
    return list(found)


def mapped_name(base: Path, name: str) -> str:
    """Return the name people know a holder by: that of device mapper ("vg0-root"), else the kernel's."""
    return _text(base / "sys/class/block" / name / "dm/name") or name


def _disk(base: Path, path: Path, udev: Mapping[str, str], busy: frozenset[str]) -> Disk:
    real = path.resolve()
    bus = _bus(path.name, str(real), udev)
    members = [path.name, *(partition.name for partition in partitions_of(path))]
    holders = all_holders_of(base, members)
    controller = _controller(real)
    return Disk(
        path=f"/dev/{path.name}",
        size_bytes=_number(path / "size") * _SECTOR_BYTES,
        sector_bytes=_number(path / "queue/logical_block_size") or _SECTOR_BYTES,
        physical_sector_bytes=_number(path / "queue/physical_block_size") or _SECTOR_BYTES,
        # Drivers pad: virtio and nvme answer in sysfs itself, ATA and SCSI only through udev's rules.
        # The short form of SCSI is the WWN once more; the number on the label is in a field of its own.
        serial=(
            udev.get("ID_SCSI_SERIAL")
            or udev.get("ID_SERIAL_SHORT")
            or _text(path / "serial")
            or _text(path / "device/serial")
            or (udev.get("ID_SERIAL", "") if bus == "virtio" else "")
        ).strip(),
        wwn=(udev.get("ID_WWN_WITH_EXTENSION") or udev.get("ID_WWN") or _text(path / "wwid")).strip(),
        model=(udev.get("ID_MODEL", "").replace("_", " ") or _text(path / "device/model")).strip(),
        bus=bus,
        by_path=udev.get("ID_PATH", ""),
        hctl=_hctl(path),
        controller=controller.name if controller else "",
        controller_id=_pci_id(controller) if controller else "",
        bay=_bay(base, path, controller),
        # The kernel calls a slot for SD cards fixed; the card in it is not (drivers/mmc/core/bus.c, "type").
        is_removable=_number(path / "removable") == 1 or _text(path / "device/type") == "SD",
        is_read_only=_number(path / "ro") == 1,
        is_rotational=_number(path / "queue/rotational") == 1,
        is_mounted=any(_is_busy(base, name, busy) for name in (*members, *holders)),
        held_by=tuple(mapped_name(base, holder) for holder in holders),
    )


def _with_contents(run: Runner, block: Path, disk: Disk) -> Disk:
    if not disk.size_bytes:
        return disk
    members = [f"/dev/{partition.name}" for partition in partitions_of(block / disk.path.removeprefix("/dev/"))]
    signatures = read_signatures(run, [disk.path, *members])
    has_table = bool(members) or any(found.device == disk.path for found in signatures)
    table = read_table(run, disk.path) if has_table else Table()
    return msgspec.structs.replace(
        disk,
        table=table.kind,
        table_id=table.id,
        partitions=table.partitions,
        signatures=with_part_uuids(signatures, table.part_uuids(disk.path)),
    )


def _is_busy(base: Path, name: str, busy: frozenset[str]) -> bool:
    mapper = f"/dev/mapper/{mapped_name(base, name)}"
    return not busy.isdisjoint((_text(base / "sys/class/block" / name / "dev"), f"/dev/{name}", mapper))


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


def _hctl(path: Path) -> str:
    device = path / "device"
    name = device.resolve().name if device.exists() else ""
    return name if _HCTL.fullmatch(name) else ""


def _controller(real: Path) -> Path | None:
    """Return the PCI function nearest to the disk; None where there is no PCI."""
    return next((parent for parent in real.parents if _PCI_ADDRESS.fullmatch(parent.name)), None)


def _pci_id(function: Path) -> str:
    vendor, device = _text(function / "vendor")[2:], _text(function / "device")[2:]
    return f"{vendor}:{device}" if vendor and device else ""


def _bay(base: Path, path: Path, controller: Path | None) -> str:
    """Return where in the machine the disk sits: drivers/misc/enclosure.c, drivers/pci/slot.c."""
    for component in path.glob("device/enclosure_device:*"):
        slot = _text(component / "slot") or component.name.partition(":")[2]
        return f"{_text(component.resolve().parent / 'id')}/{slot}"
    address = controller.name.rpartition(".")[0] if controller and path.name.startswith("nvme") else ""
    slots = sorted((base / "sys/bus/pci/slots").glob("*/address")) if address else []
    return next((slot.parent.name for slot in slots if _text(slot) == address), "")


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _number(path: Path) -> int:
    text = _text(path)
    return int(text) if text.isdigit() else 0
