"""Half an array or volume group is never destroyed in silence."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.facts import Disk, Signature
from cloner_core.membership import lost_with, torn, wholes
from core.machines import disk

KINDS = ("LVM2_member", "linux_raid_member", "isw_raid_member", "ddf_raid_member", "btrfs", "zfs_member")


def member(device: str, kind: str, group: str, uuid: str = "") -> Signature:
    return Signature(device, kind, uuid, group=group, group_uuid=uuid)


def having(path: str, *found: Signature) -> Disk:
    return msgspec.structs.replace(disk(path), serial=f"S{path[-1]}", signatures=found)


@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_on_a_disk_not_chosen_too_is_torn_and_both_are_named(kind: str) -> None:
    first = having("/dev/a", member("/dev/a1", kind, "data", "u-1"), Signature("/dev/a2", "ext4", "x"))
    second = having("/dev/b", member("/dev/b", kind, "data", "u-1"))
    (found,) = torn((first, second), lost_with((first,)))
    assert "'data' lies on /dev/a1 and also on /dev/b on /dev/b (" in str(found)
    assert "serial Sb" in str(found)
    assert torn((first, second), lost_with((first, second))) == ()


def test_two_groups_of_one_name_are_two_groups() -> None:
    """A former clone of the same image beside the disk that is cloned now."""
    first = having("/dev/a", member("/dev/a1", "LVM2_member", "vg0", "u-1"))
    second = having("/dev/b", member("/dev/b1", "LVM2_member", "vg0", "u-2"))
    assert torn((first, second), lost_with((first,))) == ()
    assert len(wholes((first, second))) == 2


def test_a_partition_that_is_kept_is_not_lost_and_can_tear_what_it_is_a_member_of() -> None:
    one = having("/dev/a", member("/dev/a1", "LVM2_member", "vg0", "u"), member("/dev/a2", "LVM2_member", "vg0", "u"))
    assert torn((one,), lost_with((one,))) == ()
    (found,) = torn((one,), lost_with((one,), kept=("/dev/a2",)))
    assert [member.device for member in found.left] == ["/dev/a2"]
    assert torn((one,), lost_with((one,), kept=("/dev/a1", "/dev/a2"))) == ()


def test_what_has_no_group_is_never_torn() -> None:
    same = [Signature(f"/dev/{name}", kind) for name, kind in zip("ab", ("LVM2_member", "ext4"), strict=True)]
    disks = [having("/dev/a", same[0]), having("/dev/b", same[0]), having("/dev/c", same[1])]
    assert torn(disks, lost_with(disks[:1])) == ()


def test_a_name_with_a_line_break_stays_on_its_line() -> None:
    disks = [having(path, member(path, "zfs_member", "a\nb", "u")) for path in ("/dev/a", "/dev/b")]
    (found,) = torn(disks, lost_with(disks[:1]))
    assert "\n" not in str(found)


@given(st.lists(st.lists(st.sampled_from("uvw"), max_size=3), min_size=1, max_size=5), st.data())
def test_whatever_is_lost_no_whole_is_torn_unseen(groups: list[list[str]], data: st.DataObject) -> None:
    """With what is reported as torn left out, each other whole goes or stays."""
    disks = [
        having(f"/dev/{number}", *(member(f"/dev/{number}p{i}", "btrfs", u, u) for i, u in enumerate(uuids)))
        for number, uuids in enumerate(groups)
    ]
    chosen = data.draw(st.sets(st.sampled_from(disks), max_size=len(disks)))
    reported = {found.whole.uuid for found in torn(disks, lost_with(tuple(chosen)))}
    for uuid in "uvw":
        fates = {one in chosen for one in disks for found in one.signatures if found.uuid == uuid}
        assert (len(fates) > 1) == (uuid in reported)
