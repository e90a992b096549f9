"""Drivers as sysfs shows them, from a disk or a network card up to the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentbench.sysfs import Sysfs
from cloner_agent.devicedrivers import bound_devices
from cloner_core.facts import Disk, Nic


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    return Sysfs(tmp_path)


def test_every_driver_on_the_way_to_a_disk_is_told(sysfs: Sysfs) -> None:
    sysfs.disk("vda", "254:0", at="pci0000:00/0000:00:03.0/virtio1")
    sysfs.bind("pci0000:00/0000:00:03.0/virtio1", "virtio_blk", "virtio:d00000002v00001AF4", "virtio_blk")
    sysfs.bind("pci0000:00/0000:00:03.0", "virtio-pci", "pci:v00001AF4d00001042")
    found = bound_devices([Disk("/dev/vda", 1 << 30)], [], str(sysfs.root))
    assert [(one.driver, one.module, one.modalias, one.is_needed) for one in found] == [
        ("virtio_blk", "virtio_blk", "virtio:d00000002v00001AF4", True),
        ("virtio-pci", "", "pci:v00001AF4d00001042", True),
    ]
    assert found[0].what == "disk /dev/vda"


def test_a_disk_that_hangs_on_nothing_in_sysfs_is_looked_for_at_its_controller(sysfs: Sysfs) -> None:
    sysfs.disk("nvme0n1", "259:0", at="virtual/nvme-subsystem/nvme-subsys0")
    address = "0000:01:00.0"
    home = sysfs.root / "sys/devices/pci0000:00" / address
    home.mkdir(parents=True)
    (sysfs.root / "sys/bus/pci/devices").mkdir(parents=True)
    (sysfs.root / "sys/bus/pci/devices" / address).symlink_to(home)
    sysfs.bind(f"pci0000:00/{address}", "nvme", "pci:v0000144D", "nvme")
    (one,) = bound_devices([Disk("/dev/nvme0n1", 1 << 30, controller=address)], [], str(sysfs.root))
    assert one.module == "nvme"


def test_a_network_card_is_told_and_not_needed_to_boot(sysfs: Sysfs) -> None:
    home = sysfs.root / "sys/devices/pci0000:00/0000:00:02.0"
    (home / "net/eth0").mkdir(parents=True)
    (sysfs.root / "sys/class/net/eth0").symlink_to(home / "net/eth0")
    sysfs.bind("pci0000:00/0000:00:02.0", "e1000e", "pci:v00008086", "e1000e")
    (one,) = bound_devices([], [Nic("eth0", "52:54:00:00:00:01"), Nic("gone", "52:54:00:00:00:02")], str(sysfs.root))
    assert (one.what, one.module, one.is_needed) == ("network card eth0", "e1000e", False)


def test_a_disk_without_drivers_needs_none(sysfs: Sysfs) -> None:
    sysfs.disk("loop0", "7:0", at="virtual")
    assert bound_devices([Disk("/dev/loop0", 1 << 30)], [], str(sysfs.root)) == ()
