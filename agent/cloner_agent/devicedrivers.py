"""Which drivers serve the disks and network cards of this machine now, as sysfs tells.

Only reads. Must not decide which of them a clone needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from cloner_core.bootneeds import BoundDevice
from cloner_core.facts import Disk, Nic


def bound_devices(disks: Sequence[Disk], nics: Sequence[Nic], root: str = "/") -> tuple[BoundDevice, ...]:
    """Return every device with a driver on the way to each of `disks` and `nics`; `root` stands before /sys."""
    sysfs = Path(root) / "sys"
    found: list[BoundDevice] = []
    for disk in disks:
        for path in (disk.path, *disk.paths):
            found += _way(sysfs / "class/block" / path.removeprefix("/dev/"), f"disk {path}", is_needed=True)
        # A multipath NVMe namespace hangs on no controller in sysfs: drivers/nvme/host/multipath.c.
        if disk.controller:
            found += _way(sysfs / "bus/pci/devices" / disk.controller, f"disk {disk.path}", is_needed=True)
    for nic in nics:
        found += _way(sysfs / "class/net" / nic.name, f"network card {nic.name}", is_needed=False)
    return tuple(dict.fromkeys(found))


def _way(entry: Path, what: str, *, is_needed: bool) -> Iterator[BoundDevice]:
    """Give the devices with a driver from `entry` up to the root of the machine."""
    if not entry.exists():
        return
    place = entry.resolve()
    while place.name and place.name != "devices":
        driver = place / "driver"
        if driver.is_symlink():
            module = driver / "module"
            yield BoundDevice(
                what=what,
                driver=driver.resolve().name,
                module=module.resolve().name if module.exists() else "",
                modalias=_text(place / "modalias"),
                is_needed=is_needed,
            )
        place = place.parent


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
