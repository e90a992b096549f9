"""The solver of sizes, the room of a GPT, and what filesystems take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.layout import Size
from cloner_core.messages import Cause
from cloner_core.plan import Contents
from cloner_core.plan.filesystems import (
    fat32_minimum_bytes,
    fat_cluster_sectors,
    fits,
    is_backup_group,
    least_bytes,
    usable_bytes,
)
from cloner_core.plan.partitioning import Wanted, place, solve
from cloner_core.plan.partitioning import usable_bytes as room_of
from cloner_core.refusals import PlanError
from cloner_core.sizes import GIB, MIB
from core.machines import disk


@st.composite
def sizes(draw: st.DrawFn) -> Size:
    least = draw(st.integers(1, 4096)) * MIB
    most = draw(st.one_of(st.just(0), st.integers(0, 4096).map(lambda extra: least + extra * MIB)))
    return Size(least, most, draw(st.integers(0, 3)))


@given(st.lists(sizes(), min_size=1, max_size=6), st.integers(0, 20_000))
def test_every_size_lies_between_its_bounds_and_nothing_is_left_that_could_be_used(
    wanted: list[Size], room_mib: int
) -> None:
    solved = solve(wanted, [0] * len(wanted), room_mib * MIB)
    least = sum(size.min_bytes for size in wanted)
    assert (solved is None) == (least > room_mib * MIB)
    if solved is None:
        return
    for size, got in zip(wanted, solved, strict=True):
        assert got >= size.min_bytes
        assert got % MIB == 0
        assert not size.max_bytes or got <= size.max_bytes
        assert size.weight or got == size.min_bytes
    left = room_mib * MIB - sum(solved)
    assert left >= 0
    growable = [
        size
        for size, got in zip(wanted, solved, strict=True)
        if size.weight and (not size.max_bytes or got < size.max_bytes)
    ]
    assert left == 0 or not growable


def test_weights_share_what_is_left() -> None:
    assert solve([Size(100 * MIB, weight=1), Size(100 * MIB, weight=3)], [0, 0], 600 * MIB) == [200 * MIB, 400 * MIB]


def test_what_a_capped_partition_cannot_take_goes_to_the_others() -> None:
    solved = solve([Size(MIB, 50 * MIB, weight=1), Size(MIB, weight=1)], [0, 0], 1000 * MIB)
    assert solved == [50 * MIB, 950 * MIB]


@pytest.mark.parametrize("sector_bytes", [512, 4096])
def test_partitions_leave_room_for_both_tables(sector_bytes: int) -> None:
    target = disk(size_bytes=4 * GIB, sector_bytes=sector_bytes)
    places = place(target, [Wanted(Size(512 * MIB, 512 * MIB)), Wanted(Size(MIB, weight=1))])
    assert places[0][0] * sector_bytes == MIB
    assert places[1][0] == sum(places[0])
    last_usable = target.size_bytes // sector_bytes - 1 - 16384 // sector_bytes - 1  # UEFI 2.10 §5.3.2
    assert sum(places[1]) - 1 <= last_usable
    assert (last_usable - sum(places[1])) * sector_bytes < MIB


@given(st.integers(0, 1 << 24), st.sampled_from([512, 4096]))
def test_any_disk_has_room_in_order_or_none(sectors: int, sector_bytes: int) -> None:
    start, end = room_of(disk(size_bytes=sectors * sector_bytes, sector_bytes=sector_bytes))
    assert start == MIB
    assert end <= max(sectors * sector_bytes - 16384 - sector_bytes, 0)


def test_a_disk_too_small_is_refused_with_what_it_needs() -> None:
    with pytest.raises(PlanError, match=r"1\.0 GiB.*needs at least 2\.0 GiB") as caught:
        place(disk(size_bytes=GIB), [Wanted(Size(2 * GIB))])
    assert caught.value.cause is Cause.DISK_TOO_SMALL


@pytest.mark.parametrize("sector_bytes", [512, 4096])
def test_every_esp_at_or_above_the_minimum_has_the_clusters_of_fat32(sector_bytes: int) -> None:
    least = fat32_minimum_bytes(sector_bytes)
    for size_bytes in (least, least + MIB, 260 * MIB, 512 * MIB, 2 * GIB):
        if size_bytes >= least:
            cluster = fat_cluster_sectors(size_bytes, sector_bytes) * sector_bytes
            tables = 32 * sector_bytes + 2 * -(-(size_bytes // cluster + 2) * 4 // sector_bytes) * sector_bytes
            # Microsoft FAT specification, "FAT Type Determination"
            assert (size_bytes - tables) // cluster >= 65525
    assert least < (34 if sector_bytes == 512 else 260) * MIB


def test_backups_of_the_superblock_lie_in_powers() -> None:
    assert [group for group in range(130) if is_backup_group(group)] == [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]


@pytest.mark.parametrize(
    ("size_bytes", "inodes", "available"),
    [
        # `df` available and reserved of filesystems made with mke2fs 1.47 by the plan's own command
        pytest.param(1682 * MIB, 20_000, 1519 * MIB, id="small"),
        pytest.param(5778 * MIB, 1_000_000, 5093 * MIB, id="a million files"),
        pytest.param(65170 * MIB, 20_000, 60564 * MIB, id="large"),
    ],
)
def test_no_more_is_promised_than_mke2fs_leaves(size_bytes: int, inodes: int, available: int) -> None:
    promised = usable_bytes("ext4", size_bytes, 512, inodes)
    assert available * 0.97 < promised <= available


@given(st.integers(0, 1 << 42), st.integers(0, 5_000_000), st.sampled_from(["ext4", "vfat", "xfs", "btrfs"]))
def test_the_least_size_holds_the_contents(allocated_bytes: int, inodes: int, filesystem: str) -> None:
    need = Contents(mount="/", allocated_bytes=allocated_bytes, inodes=inodes)
    least = least_bytes(need, filesystem, 512)
    assert fits(need, filesystem, least, 512)
    assert usable_bytes(filesystem, least, 512, inodes) >= allocated_bytes
