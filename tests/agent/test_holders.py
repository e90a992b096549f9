"""A disk is released from what holds it, or the deploy stops before anything was destroyed."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentbench.runner import FakeRunner
from agentbench.sysfs import Sysfs
from cloner_agent.failures import StageError
from cloner_agent.holders import stop_holders
from cloner_core.messages import Cause


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    sysfs = Sysfs(tmp_path)
    sysfs.disk("null", "254:0", at="virtio2")  # /dev/null stands in: a device that opens
    sysfs.partition("null", "null1", "254:1")
    sysfs.disk("md0", "9:0", at="virtual")
    sysfs.disk("dm-0", "253:0", at="virtual", dm__name="vg-root", dm__uuid="LVM-x")
    return sysfs


def _drop(path: Path) -> None:
    path.rmdir()


def test_a_free_disk_needs_no_program(sysfs: Sysfs) -> None:
    runner = FakeRunner()
    stop_holders("/dev/null", runner, root=str(sysfs.root))
    assert runner.ran == []


def test_layers_are_peeled_off_from_the_outside(sysfs: Sysfs) -> None:
    runner = FakeRunner()
    sysfs.hold("null1", "md0")
    sysfs.append("proc/self/mountinfo", "2 1 9:0 / /a\\040b rw - ext4 /dev/md0 rw")
    sysfs.append("proc/swaps", "/dev/null1 partition 1 0 -2")
    holder = (sysfs.root / "sys/class/block/null1").resolve() / "holders/md0"
    runner.effects[("mdadm", "--stop", "/dev/md0")] = lambda: _drop(holder)
    stop_holders("/dev/null", runner, root=str(sysfs.root))
    assert runner.ran[:3] == [("swapoff", "/dev/null1"), ("umount", "/a b"), ("mdadm", "--stop", "/dev/md0")]


def test_a_volume_in_an_encrypted_partition_goes_before_what_it_lies_in(sysfs: Sysfs) -> None:
    runner = FakeRunner()
    sysfs.disk("dm-1", "253:1", at="virtual", dm__name="secret", dm__uuid="CRYPT-LUKS2-x")
    sysfs.hold("null1", "dm-1")
    sysfs.hold("dm-1", "dm-0")
    sysfs.append("proc/swaps", "/dev/mapper/vg-root partition 1 0 -2")
    held = {name: (sysfs.root / "sys/class/block" / name).resolve() / "holders" for name in ("null1", "dm-1")}
    lvchange = ("lvchange", "--yes", "--activate", "n", "/dev/mapper/vg-root")
    runner.effects[("dmsetup", "remove", "vg-root")] = lambda: _drop(held["dm-1"] / "dm-0")
    runner.effects[("cryptsetup", "close", "secret")] = lambda: _drop(held["null1"] / "dm-1")
    stop_holders("/dev/null", runner, root=str(sysfs.root))
    assert runner.ran == [
        ("swapoff", "/dev/mapper/vg-root"),
        lvchange,  # comes to nothing here
        ("dmsetup", "remove", "vg-root"),
        ("cryptsetup", "close", "secret"),
    ]


def test_a_btrfs_is_unmounted_also_where_mountinfo_names_another_of_its_devices(sysfs: Sysfs) -> None:
    runner = FakeRunner()
    for name in ("null1", "vdz"):
        sysfs.write(f"sys/fs/btrfs/5d1c/devices/{name}", "")
    sysfs.append("proc/self/mountinfo", "2 1 0:45 / /data rw - btrfs /dev/vdz rw")
    stop_holders("/dev/null", runner, root=str(sysfs.root))
    assert runner.ran == [("umount", "/data")]


def test_a_disk_that_stays_held_stops_the_deploy(sysfs: Sysfs) -> None:
    runner = FakeRunner()
    sysfs.hold("null1", "dm-0")
    runner.failing |= dict.fromkeys(("dmsetup", "lvchange"), (1, "Device or resource busy"))
    with pytest.raises(StageError, match="vg-root") as caught:
        stop_holders("/dev/null", runner, root=str(sysfs.root))
    assert caught.value.cause is Cause.DEVICE_BUSY
