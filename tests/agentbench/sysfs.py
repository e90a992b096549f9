"""Builds small /sys and /proc trees of machines that are not here."""

from __future__ import annotations

from pathlib import Path


class Sysfs:
    """A tree that `probe(root=…)` and `stop_holders(root=…)` read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for directory in ("sys/block", "sys/class/block", "sys/class/net", "proc/self"):
            (root / directory).mkdir(parents=True)
        self.write("proc/self/mountinfo", "1 0 0:1 / / rw - rootfs rootfs rw\n")
        self.write("proc/swaps", "Filename Type Size Used Priority\n")
        self.write("proc/meminfo", "MemFree: 1 kB\nMemTotal:  524288 kB\n")

    def write(self, path: str, text: str) -> None:
        """Write one file, its parents made."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def append(self, path: str, line: str) -> None:
        """Add a line to a file of /proc."""
        with (self.root / path).open("a") as file:
            file.write(line + "\n")

    def disk(self, name: str, device: str, *, at: str, sectors: int = 2048, **files: str) -> None:
        """Add a disk at the sysfs path `at` below /sys/devices; keywords are files, "__" for "/"."""
        home = f"sys/devices/{at}/block/{name}"
        self.write(f"{home}/dev", device + "\n")
        self.write(f"{home}/size", f"{sectors}\n")
        (self.root / home / "holders").mkdir()
        for key, value in files.items():
            self.write(f"{home}/{key.replace('__', '/')}", value + "\n")
        (self.root / "sys/block" / name).symlink_to(self.root / home)
        (self.root / "sys/class/block" / name).symlink_to(self.root / home)

    def bind(self, place: str, driver: str, modalias: str, module: str = "") -> None:
        """Have `driver` serve the device at `place` below /sys/devices; without `module` it is built in."""
        bus = self.root / "sys/bus/any/drivers" / driver
        bus.mkdir(parents=True, exist_ok=True)
        if module:
            (self.root / "sys/module" / module).mkdir(parents=True)
            (bus / "module").symlink_to(self.root / "sys/module" / module)
        (self.root / "sys/devices" / place / "driver").symlink_to(bus)
        self.write(f"sys/devices/{place}/modalias", modalias + "\n")

    def partition(self, disk: str, name: str, device: str) -> None:
        """Add a partition to a disk."""
        home = (self.root / "sys/block" / disk).resolve() / name
        (home / "holders").mkdir(parents=True)
        (home / "partition").write_text(name.removeprefix(disk).lstrip("p") + "\n")
        (home / "dev").write_text(device + "\n")
        (self.root / "sys/class/block" / name).symlink_to(home)

    def hold(self, name: str, holder: str) -> None:
        """Have `holder` hold the disk or partition `name`."""
        ((self.root / "sys/class/block" / name).resolve() / "holders" / holder).mkdir()
