"""Whatever lies on whatever: what is planned fits into what carries it, and the image fits into what is planned."""

from __future__ import annotations

from typing import Literal, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloner_core.facts import Facts
from cloner_core.layout import (
    Array,
    ArrayMember,
    DiskLayout,
    EspCopy,
    Filesystem,
    Layout,
    LogicalVolume,
    Partition,
    PhysicalVolume,
    Selector,
    Size,
    Swap,
    VolumeGroup,
)
from cloner_core.layout.rules import layout_faults
from cloner_core.layout.stacking import LEAST_MEMBERS
from cloner_core.messages import Cause
from cloner_core.plan import Contents, Plan, PlanError
from cloner_core.plan.filesystems import fits
from cloner_core.plan.stacking import data_disks, group_extents, least_member_bytes, member_bytes
from cloner_core.sizes import GIB, KIB, MIB
from core.machines import disk, machine, plan

Level = Literal["raid0", "raid1", "raid5", "raid6", "raid10"]
LEVELS = tuple(LEAST_MEMBERS)
KINDS: tuple[Literal["ext4", "xfs", "btrfs"], ...] = ("ext4", "xfs", "btrfs")


@st.composite
def sizes(draw: st.DrawFn) -> Size:
    least = draw(st.integers(64, 4096)) * MIB
    most = draw(st.sampled_from([0, least, least + GIB]))
    return Size(least, most, draw(st.integers(0, 3)))


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Facts, Layout, tuple[Contents, ...]]:
    """A machine of several disks, a layout with an array, a volume group or both on them, and an image."""
    level = cast(Level, draw(st.sampled_from(LEVELS)))
    count = draw(st.integers(LEAST_MEMBERS[level], 5))
    sector_bytes = draw(st.sampled_from([512, 4096]))
    disks = [
        disk(
            f"/dev/sd{chr(97 + index)}",
            draw(st.integers(4 * GIB // sector_bytes, 40 * GIB // sector_bytes)) * sector_bytes,
            sector_bytes=sector_bytes,
            serial=f"S{index}",
        )
        for index in range(count)
    ]
    kind = draw(st.sampled_from(KINDS))
    root = Filesystem(kind=kind, mount="/")
    volumes = [LogicalVolume("root", draw(sizes()), root)]
    if draw(st.booleans()):
        volumes.append(LogicalVolume("swap", draw(sizes()), Swap()))
    if draw(st.booleans()):
        volumes.append(LogicalVolume("var", draw(sizes()), Filesystem(kind=draw(st.sampled_from(KINDS)), mount="/var")))
    group = VolumeGroup("vg0", tuple(volumes), draw(st.sampled_from([1, 4, 32])))
    shape = draw(st.sampled_from(["array", "group", "both"]))
    member = PhysicalVolume("vg0") if shape == "group" else ArrayMember("system")
    carried = root if shape == "array" else PhysicalVolume("vg0")
    metadata = cast(Literal["1.0", "1.2"], draw(st.sampled_from(["1.0", "1.2"])))
    array = Array("system", level, carried, metadata, draw(st.sampled_from([64, 512])))
    layouts = [
        DiskLayout(
            id=f"d{index}",
            select=Selector(serial=f"S{index}"),
            partitions=(
                Partition("esp", Size(300 * MIB, 300 * MIB), EspCopy() if index else Filesystem("vfat", "/boot/efi")),
                Partition("lvm" if shape == "group" else "raid", draw(sizes()), member),
            ),
        )
        for index in range(count)
    ]
    layout = Layout(
        name="stacked",
        disks=tuple(layouts),
        arrays=() if shape == "group" else (array,),
        groups=() if shape == "array" else (group,),
    )
    need = Contents("/", draw(st.integers(0, 3 * GIB)), draw(st.integers(1, 100_000)))
    return machine(*disks), layout, (need,)


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(scenes())
def test_what_is_planned_fits_into_what_carries_it(given_: tuple[Facts, Layout, tuple[Contents, ...]]) -> None:
    facts, layout, contents = given_
    assert layout_faults(layout) == []
    try:
        made = plan(facts, layout, contents)
    except PlanError as error:
        assert error.cause is Cause.DISK_TOO_SMALL  # noqa: PT017
        return
    sizes_of = {
        partition.device: partition.size_sectors * planned.disk.sector_bytes
        for planned in made.disks
        for partition in planned.partitions
    }
    for wanted, array in zip(layout.arrays, made.arrays, strict=True):
        carried = min(sizes_of[member] for member in array.members)
        assert array.offset_bytes + array.member_bytes < carried
        assert array.member_bytes % (64 * KIB) == 0
        assert array.size_bytes <= array.member_bytes * data_disks(wanted, len(array.members))
        sizes_of[array.device] = array.size_bytes
    for group in made.groups:
        extents = group_extents([(device, sizes_of[device]) for device in group.physical], group.extent_mib)
        assert sum(volume.extents for volume in group.volumes) <= extents
        _within_bounds(layout.groups[0], made)
        sizes_of |= {group.device(volume): volume.extents * group.extent_mib * MIB for volume in group.volumes}
    for volume in made.volumes:
        assert volume.size_bytes <= sizes_of[volume.device]
        if volume.mount == "/":
            assert fits(contents[0], volume.filesystem, volume.size_bytes, volume.sector_bytes)


def _within_bounds(wanted: VolumeGroup, made: Plan) -> None:
    extent = wanted.extent_mib * MIB
    for one, planned in zip(wanted.volumes, made.groups[0].volumes, strict=True):
        assert planned.extents * extent >= one.size.min_bytes
        is_raised = planned.extents * extent > one.size.min_bytes + extent
        assert one.size.weight or not is_raised
        if one.size.max_bytes:
            assert planned.extents * extent < one.size.max_bytes + extent


@given(st.sampled_from(LEVELS), st.integers(0, 1 << 42), st.integers(2, 12), st.sampled_from(["1.0", "1.2"]))
def test_the_least_member_is_large_enough(level: Level, content_bytes: int, more: int, metadata: str) -> None:
    members = max(more, LEAST_MEMBERS[level])
    array = Array("a", level, Swap(), cast(Literal["1.0", "1.2"], metadata))
    each = member_bytes(array, least_member_bytes(array, content_bytes, members))
    assert int(each * data_disks(array, members)) >= content_bytes


@pytest.mark.parametrize("name", ["raid1", "raid5"])
def test_a_growing_member_is_made_as_large_as_the_image_needs(name: Level) -> None:
    """The minimum of each level of the stack follows from what the image puts on its top."""
    count = LEAST_MEMBERS[name]
    member = Partition("raid", Size(64 * MIB, weight=1), ArrayMember("system"))
    esp = Partition("esp", Size(300 * MIB, 300 * MIB), Filesystem("vfat", "/boot/efi"))
    layout = Layout(
        name="grow",
        disks=tuple(
            DiskLayout(f"d{index}", Selector(serial=f"S{index}"), (esp, member) if not index else (member,))
            for index in range(count)
        ),
        arrays=(Array("system", name, Filesystem("ext4", "/")),),
    )
    disks = [disk(f"/dev/sd{chr(97 + index)}", 3 * GIB, serial=f"S{index}") for index in range(count)]
    with pytest.raises(PlanError, match="needs at least") as caught:
        plan(machine(*disks), layout, (Contents("/", 20 * GIB, 10),))
    assert caught.value.cause is Cause.DISK_TOO_SMALL
