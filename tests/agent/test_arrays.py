"""Members of an array that lack a part of its data are told, whatever a read of the array returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentbench.sysfs import Sysfs
from cloner_agent.arrays import member_faults
from cloner_core.plan.values import PlannedArray

MEMBERS = ("/dev/vda2", "/dev/vdb2", "/dev/vdc2")


class _Array:
    """Three disks in one array, all in sync."""

    def __init__(self, root: Path, level: str) -> None:
        self._sysfs = Sysfs(root)
        self.level = level
        self.write("sync_action", "idle")
        for device in MEMBERS:
            self.member(device, state="in_sync", bad_blocks="", unacknowledged_bad_blocks="")

    def write(self, name: str, text: str) -> None:
        self._sysfs.write(f"sys/block/md120/md/{name}", f"{text}\n" if text else "")

    def member(self, device: str, **files: str) -> None:
        for name, text in files.items():
            self.write(f"dev-{device.removeprefix('/dev/')}/{name}", text)

    def faults(self) -> list[tuple[str, str]]:
        fields: dict[str, Any] = {
            "id": "root", "device": "/dev/md120", "metadata": "1.2", "uuid": "u", "member_bytes": 1, "offset_bytes": 1,
            "size_bytes": 1,
        }  # fmt: skip
        return list(
            member_faults(PlannedArray(level=self.level, members=MEMBERS, **fields), root=str(self._sysfs.root))
        )


FAULTS: dict[str, tuple[dict[str, str], str]] = {
    "failed": ({"state": "faulty"}, "is faulty"),
    "failed, not yet acknowledged": ({"state": "faulty,blocked"}, "is faulty"),
    "cannot be written": ({"state": "in_sync,write_error,want_replacement"}, "is write_error, want_replacement"),
    "bad blocks": ({"bad_blocks": "2048 8\n4096 16"}, "has bad blocks, the first at sector 2048"),
    "new bad blocks": ({"unacknowledged_bad_blocks": "512 8"}, "has bad blocks, the first at sector 512"),
    "behind": ({"state": "spare"}, "is not in sync but spare"),
}


@pytest.mark.parametrize("level", ["raid0", "raid1", "raid5", "raid6", "raid10"])
@pytest.mark.parametrize(("files", "said"), FAULTS.values(), ids=FAULTS)
def test_a_member_that_lacks_data_is_told(tmp_path: Path, level: str, files: dict[str, str], said: str) -> None:
    array = _Array(tmp_path, level)
    assert array.faults() == []
    array.member("/dev/vdb2", **files)
    assert array.faults() == [("/dev/vdb2", said)]


def test_a_member_that_md_has_let_go_and_an_array_that_is_gone_are_told(tmp_path: Path) -> None:
    array = _Array(tmp_path, "raid1")
    (tmp_path / "sys/block/md120/md/dev-vdc2/state").unlink()
    assert array.faults() == [("/dev/vdc2", "is not in the array")]
    (tmp_path / "sys/block/md120").rename(tmp_path / "gone")
    assert [device for device, _ in array.faults()] == list(MEMBERS)


@pytest.mark.parametrize(("level", "can_be"), [("raid1", False), ("raid10", False), ("raid5", True), ("raid6", True)])
def test_parity_is_still_built_onto_a_spare_and_a_mirror_has_none(tmp_path: Path, level: str, can_be: bool) -> None:
    array = _Array(tmp_path, level)
    array.write("sync_action", "recover")
    array.member("/dev/vdc2", state="spare")
    assert (array.faults() == []) is can_be
    array.member("/dev/vdc2", bad_blocks="8 8")
    assert array.faults() == [("/dev/vdc2", "has bad blocks, the first at sector 8")]


def test_other_states_and_an_array_without_a_log_of_bad_blocks_are_no_fault(tmp_path: Path) -> None:
    array = _Array(tmp_path, "raid1")
    array.member("/dev/vda2", state="in_sync,write_mostly,failfast")
    array.member("/dev/vdb2", state="external_bbl,in_sync,blocked")
    (tmp_path / "sys/block/md120/md/dev-vdc2/bad_blocks").unlink()
    (tmp_path / "sys/block/md120/md/dev-vdc2/unacknowledged_bad_blocks").unlink()
    assert array.faults() == []
