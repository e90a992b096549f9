"""What a former system left on a node's disks is found, let go of and wiped, with the kernel and tools of a node."""

from __future__ import annotations

import msgspec
import pytest

from cloner_core.facts import Disk
from cloner_initramfs import Cache
from vmlab import Lab, blank_disk
from vmlab.disk import GIB, MIB, two_cables
from vmlab.onnode.old_volumes import CHOSEN, KEPT
from vmlab.workbench import run_on_node

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]


def test_arrays_groups_and_pools_of_a_former_system_are_found_stopped_and_wiped(lab: Lab, cache: Cache) -> None:
    names = [path.removeprefix("/dev/") for path in (*CHOSEN, *KEPT)]
    disks = tuple(blank_disk(lab.directory / name, GIB // 2, serial=name.upper()) for name in names)
    cabled = blank_disk(lab.directory / "cabled", GIB // 4, serial="CABLED")
    more = two_cables(cabled.path, serial=cabled.serial, wwn=0x5000_C500_0000_C10E)
    told = run_on_node(lab, cache, "old_volumes", disks, more=more)
    before, after = (
        {disk.path: disk for disk in msgspec.convert(told[when], tuple[Disk, ...])} for when in ("before", "after")
    )
    members = {
        (one.device, one.kind, one.group): one.group_uuid
        for disk in before.values()
        for one in disk.signatures
        if one.group or one.group_uuid
    }
    assert set(members) == {
        ("/dev/vda1", "linux_raid_member", "any:mirror"),
        ("/dev/vdb1", "linux_raid_member", "any:mirror"),
        ("/dev/vdd", "btrfs", "pool"),
        ("/dev/vde", "btrfs", "pool"),
        ("/dev/vdf", "LVM2_member", "wide"),
        ("/dev/vdg", "LVM2_member", "wide"),
    }
    assert len(set(members.values())) == 3
    assert before["/dev/vdc"].signatures[0].kind == "crypto_LUKS"
    assert {path: disk.held_by for path, disk in before.items() if disk.held_by} == {
        "/dev/vda": ("md0", "nested-data"),
        "/dev/vdb": ("md0", "nested-data"),
        "/dev/vdc": ("vault", "secret-swap"),
    }
    assert {path for path, disk in before.items() if disk.is_mounted} == set(CHOSEN)
    assert [(part.number, part.size_bytes // MIB) for part in before["/dev/vda"].partitions] == [(1, 200), (2, 50)]
    for path in CHOSEN:
        disk = after[path]
        assert (disk.signatures, disk.partitions, disk.held_by, disk.is_mounted) == ((), (), (), False), path
    assert all(after[path].signatures == before[path].signatures for path in KEPT)
    # One disk that is reached over two cables.
    cables = {"/dev/sda", "/dev/sdb"}
    assert {path for path in after if path in cables} | {*after["/dev/sda"].paths} == cables
    assert set(before) == {*CHOSEN, *KEPT, "/dev/sda"}
    assert (before["/dev/sda"].serial, before["/dev/sda"].bus) == ("CABLED", "scsi")
    assert (told["arrays"], told["groups"], told["mapped"], told["groups_in_dev"]) == ("", ["wide"], [], [])
