"""Choosing disks: exactly one each, never one that must not be touched, and a reason for each that was not."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.facts import Disk
from cloner_core.layout import Layout, Match, Pick, Selector
from cloner_core.messages import Cause
from cloner_core.refusals import PlanError
from cloner_core.selectors import select_disks
from cloner_core.sizes import GIB
from core.machines import data_disk, disk, layout


def two_disks(first: Selector, second: Selector) -> Layout:
    base = layout(select=first)
    return msgspec.structs.replace(base, disks=(*base.disks, data_disk(second)))


@pytest.mark.parametrize(
    ("select", "path"),
    [
        pytest.param(Selector(serial="S2"), "/dev/b", id="serial"),
        pytest.param(Selector(serial="*3"), "/dev/c", id="serial pattern"),
        pytest.param(Selector(model="Fast*"), "/dev/c", id="model pattern"),
        pytest.param(Selector(size_max_bytes=4 * GIB), "/dev/a", id="small"),
        pytest.param(Selector(size_min_bytes=5 * GIB, size_max_bytes=9 * GIB), "/dev/b", id="range"),
    ],
)
def test_the_order_of_disks_does_not_matter(select: Selector, path: str) -> None:
    disks = (
        disk("/dev/a", 4 * GIB, serial="S1"),
        disk("/dev/b", 8 * GIB, serial="S2"),
        disk("/dev/c", 16 * GIB, serial="S3", model="FastDisk"),
    )
    for order in itertools.permutations(disks):
        assert select_disks(layout(select=select), order)["system"].path == path


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"is_removable": True}, "is removable"),
        ({"bus": "usb"}, "is on USB"),
        ({"is_read_only": True}, "is read-only"),
        ({"is_mounted": True}, "is in use"),
        ({"size_bytes": 0}, "has no medium"),
        ({"serial": "KEEP"}, "is protected"),
    ],
)
def test_a_disk_that_must_not_be_touched_is_never_chosen(changes: dict[str, object], reason: str) -> None:
    barred = msgspec.structs.replace(disk("/dev/x"), **changes)
    with pytest.raises(PlanError, match=reason) as caught:
        select_disks(layout(), (barred,), ("KEEP",))
    assert caught.value.cause is Cause.NO_DISK
    chosen = select_disks(layout(), (barred, disk("/dev/y", serial="OK")), ("KEEP",))
    assert chosen["system"].path == "/dev/y"


def test_two_matches_are_refused_and_both_are_named() -> None:
    with pytest.raises(PlanError) as caught:
        select_disks(layout(), (disk("/dev/a"), disk("/dev/b")))
    assert caught.value.cause is Cause.AMBIGUOUS_DISK
    assert "/dev/a" in caught.value.message
    assert "/dev/b" in caught.value.message
    assert caught.value.hint


def test_no_disk_at_all_is_said() -> None:
    with pytest.raises(PlanError, match="there is no disk") as caught:
        select_disks(layout(), ())
    assert caught.value.cause is Cause.NO_DISK


def test_two_selectors_never_share_a_disk() -> None:
    wanted = two_disks(Selector(serial="S1"), Selector(size_min_bytes=5 * GIB))
    with pytest.raises(PlanError, match="both choose") as caught:
        select_disks(wanted, (disk("/dev/a", 8 * GIB, serial="S1"),))
    assert caught.value.cause is Cause.AMBIGUOUS_DISK
    chosen = select_disks(wanted, (disk("/dev/a", 4 * GIB, serial="S1"), disk("/dev/b", 8 * GIB, serial="S2")))
    assert {key: value.path for key, value in chosen.items()} == {"system": "/dev/a", "data": "/dev/b"}


DISKS = st.lists(
    st.builds(
        Disk,
        path=st.sampled_from([f"/dev/{name}" for name in "abcdef"]),
        size_bytes=st.sampled_from([0, 4 * GIB, 8 * GIB]),
        serial=st.sampled_from(["", "S1", "S2", "KEEP"]),
        bus=st.sampled_from(["", "usb", "nvme"]),
        is_removable=st.booleans(),
        is_read_only=st.booleans(),
        is_mounted=st.booleans(),
    ),
    unique_by=lambda one: one.path,
    max_size=5,
)


@given(
    DISKS, st.builds(Selector, serial=st.sampled_from(["", "S*", "S1"]), size_min_bytes=st.sampled_from([0, 5 * GIB]))
)
def test_whatever_is_chosen_is_the_only_one_that_may_be(disks: list[Disk], select: Selector) -> None:
    allowed = [
        one
        for one in disks
        if one.size_bytes and not (one.is_removable or one.is_read_only or one.is_mounted)
        if one.bus != "usb" and one.serial != "KEEP" and one.size_bytes >= select.size_min_bytes
        if select.serial == "" or one.serial == "S1" or (select.serial == "S*" and one.serial == "S2")
    ]
    try:
        chosen = [select_disks(layout(select=select), disks, ("KEEP",))["system"]]
    except PlanError as error:
        chosen = []
        expected = Cause.AMBIGUOUS_DISK if allowed else Cause.NO_DISK
        if error.cause is not expected or len(allowed) == 1:
            raise
    if chosen:
        assert chosen == allowed


TWINS = (
    disk("/dev/nvme1n1", serial="T1", wwn="eui.1", bus="nvme", by_path="pci-0000:02:00.0-nvme-1", bay="10"),
    disk("/dev/nvme0n1", serial="T2", wwn="eui.2", bus="nvme", by_path="pci-0000:10:00.0-nvme-1", bay="9"),
    disk(
        "/dev/sda",
        2 * GIB,
        serial="S1",
        bus="ata",
        controller="0000:00:1f.2",
        controller_id="8086:2922",
        is_rotational=True,
        sector_bytes=4096,
    ),
)


@pytest.mark.parametrize(
    ("select", "path"),
    [
        pytest.param(Selector(bus="ata"), "/dev/sda", id="bus"),
        pytest.param(Selector(wwn="eui.2"), "/dev/nvme0n1", id="wwn"),
        pytest.param(Selector(path="pci-0000:02:*"), "/dev/nvme1n1", id="path"),
        pytest.param(Selector(controller="8086:*"), "/dev/sda", id="controller id"),
        pytest.param(Selector(controller="0000:00:1f.2"), "/dev/sda", id="controller address"),
        pytest.param(Selector(bay="9"), "/dev/nvme0n1", id="bay"),
        pytest.param(Selector(rotational=True), "/dev/sda", id="rotating"),
        pytest.param(Selector(rotational=False, serial=Match(none=("T1",))), "/dev/nvme0n1", id="not this one"),
        pytest.param(Selector(sector_bytes=4096), "/dev/sda", id="sectors"),
        pytest.param(Selector(serial=Match(any=("T2", "X*"))), "/dev/nvme0n1", id="one of"),
        pytest.param(Selector(serial=Match(any=("T*",), none=("*2",))), "/dev/nvme1n1", id="these but not those"),
        pytest.param(Selector(bus="nvme", pick=Pick(1, 2, "path")), "/dev/nvme1n1", id="first by path"),
        pytest.param(Selector(bus="nvme", pick=Pick(2, 2, "path")), "/dev/nvme0n1", id="second by path"),
        pytest.param(Selector(bus="nvme", pick=Pick(1, 2, "bay")), "/dev/nvme0n1", id="bays count as numbers"),
        pytest.param(Selector(pick=Pick(1, 3, "serial")), "/dev/sda", id="first by serial"),
    ],
)
def test_every_property_tells_disks_apart(select: Selector, path: str) -> None:
    for order in itertools.permutations(TWINS):
        assert select_disks(layout(select=select), order)["system"].path == path


@pytest.mark.parametrize(
    ("select", "told"),
    [
        pytest.param(Selector(bus="nvme", pick=Pick(1, 3, "path")), "2 disks match where 3 must", id="too few"),
        pytest.param(Selector(pick=Pick(1, 2, "path")), "3 disks match where 2 must", id="too many"),
        pytest.param(Selector(bus="nvme", pick=Pick(1, 2, "size")), "each with its own size", id="alike"),
        pytest.param(Selector(pick=Pick(1, 3, "bay")), "each with its own bay", id="one without a bay"),
    ],
)
def test_a_pick_that_is_not_sure_is_refused(select: Selector, told: str) -> None:
    with pytest.raises(PlanError, match=told) as caught:
        select_disks(layout(select=select), TWINS)
    assert caught.value.cause is Cause.AMBIGUOUS_DISK


def test_an_untouched_disk_is_never_chosen_and_the_refusal_says_so() -> None:
    wanted = msgspec.structs.replace(layout(select=Selector(bus="nvme")), untouched=(Selector(serial="T1"),))
    assert select_disks(wanted, TWINS)["system"].path == "/dev/nvme0n1"
    both = msgspec.structs.replace(wanted, untouched=(Selector(serial=Match(any=("T*",))),))
    with pytest.raises(PlanError, match="is not to be touched: serial 'T\\*'") as caught:
        select_disks(both, TWINS)
    assert caught.value.cause is Cause.NO_DISK
