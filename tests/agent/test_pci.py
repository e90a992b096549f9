"""Disk controllers and network cards as sysfs shows them."""

from __future__ import annotations

from pathlib import Path

from agentbench.runner import FakeRunner
from agentbench.sysfs import Sysfs
from cloner_agent.pci import list_pci
from cloner_agent.probe import probe
from cloner_core.facts import PciDevice

VIRTIO = "pci:v00001AF4d00001042sv00001AF4sd00001100bc01sc00i00"


def add(sysfs: Sysfs, address: str, class_code: str, modalias: str, **drivers: tuple[str, str]) -> None:
    """Add a PCI function; `drivers` are (driver, module) by directory beneath it, "" for a driver built in."""
    home = f"sys/devices/pci0000:00/{address}"
    sysfs.write(f"{home}/class", f"0x{class_code}\n")
    sysfs.write(f"{home}/modalias", f"{modalias}\n")
    for where, (driver, module) in drivers.items():
        directory = sysfs.root / home / where.replace("__", "/").removeprefix("self")
        directory.mkdir(parents=True, exist_ok=True)
        of_driver = sysfs.root / "sys/bus/any/drivers" / driver
        of_driver.mkdir(parents=True, exist_ok=True)
        (directory / "driver").symlink_to(of_driver)
        if module:
            of_module = sysfs.root / "sys/module" / module
            of_module.mkdir(parents=True, exist_ok=True)
            if not (of_driver / "module").exists():
                (of_driver / "module").symlink_to(of_module)
    bus = sysfs.root / "sys/bus/pci/devices"
    bus.mkdir(parents=True, exist_ok=True)
    (bus / address).symlink_to(sysfs.root / home)


def test_controllers_and_cards_are_told_with_the_modules_that_drive_them_and_what_is_beneath(tmp_path: Path) -> None:
    sysfs = Sysfs(tmp_path)
    add(
        sysfs, "0000:00:04.0", "010000", VIRTIO, self=("virtio-pci", "virtio_pci"), virtio0=("virtio_blk", "virtio_blk")
    )
    add(sysfs, "0000:00:05.0", "020000", "pci:v00008086d0000100Esv", self=("e1000", ""))
    add(sysfs, "0000:00:06.0", "010400", "pci:v00001000d00000016sv")
    add(sysfs, "0000:00:01.0", "030000", "pci:v00001234d00001111sv", self=("bochs", "bochs"))
    disk, card, orphan = list_pci(str(sysfs.root))
    assert disk == PciDevice("0000:00:04.0", "010000", VIRTIO, "virtio-pci", ("virtio_blk", "virtio_pci"))
    assert (card.driver, card.modules, card.is_storage) == ("e1000", (), False)
    assert (orphan.driver, orphan.id, orphan.is_storage) == ("", "1000:0016", True)
    assert probe(FakeRunner(), root=str(sysfs.root), properties=lambda _: {}, addresses=dict).pci == (
        disk,
        card,
        orphan,
    )


def test_a_machine_without_pci_has_none(tmp_path: Path) -> None:
    assert list_pci(str(Sysfs(tmp_path).root)) == ()
