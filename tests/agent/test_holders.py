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


def test_a_disk_that_stays_held_stops_the_deploy(sysfs: Sysfs) -> None:
    runner = FakeRunner()
    sysfs.hold("null1", "dm-0")
    runner.failing["dmsetup"] = (1, "Device or resource busy")
    with pytest.raises(StageError, match="dm-0") as caught:
        stop_holders("/dev/null", runner, root=str(sysfs.root))
    assert caught.value.cause is Cause.DEVICE_BUSY
