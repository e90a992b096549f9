"""Finds the disk controllers and network cards on PCI in sysfs, and the modules that drive them now.

Must not load a module, nor judge what is missing.
"""

from __future__ import annotations

import os
from pathlib import Path

from cloner_core.facts import PciDevice

_CLASSES = ("01", "02")  # mass storage, network: PCI Code and ID Assignment Specification §1
_MOST_DIRECTORIES = 20_000  # beneath one controller; hundreds of disks may hang on it
_MOST_DEVICES = 4096
_MOST_MODULES = 64


def list_pci(root: str = "/") -> tuple[PciDevice, ...]:
    """Return every controller of disks and network card, by address; `root` stands before /sys."""
    functions = Path(root) / "sys/bus/pci/devices"
    if not functions.is_dir():
        return ()
    found = []
    for path in sorted(functions.iterdir()):
        class_code = _text(path / "class").removeprefix("0x")
        if class_code.startswith(_CLASSES):
            driver = path / "driver"
            found.append(
                PciDevice(
                    address=path.name,
                    class_code=class_code,
                    modalias=_text(path / "modalias"),
                    driver=driver.resolve().name if driver.exists() else "",
                    modules=_modules(path),
                )
            )
    return tuple(found[:_MOST_DEVICES])


def _modules(function: Path) -> tuple[str, ...]:
    """Return the modules of the function's driver and of the drivers beneath it: virtio_pci, virtio_blk."""
    found: set[str] = set()
    for count, (directory, names, _) in enumerate(os.walk(function.resolve())):
        if count == _MOST_DIRECTORIES:
            break
        # A driver that is built into the kernel has no module.
        if "driver" in names and (module := Path(directory, "driver/module")).exists():
            found.add(module.resolve().name)
    return tuple(sorted(found)[:_MOST_MODULES])


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
