"""What is written into the firmware: the order that keeps the server in control, and no litter."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.efi import HardDrive, LoadOption, build_load_option, build_order, disk_entry, entry_name
from cloner_core.nvram import Nvram, describe, nvram_faults, nvram_plan, read_nvram

LOADER = "\\EFI\\debian\\shimx64.efi"
OURS = HardDrive(1, 2048, 1048576, "aaaaaaaa-0000-4000-8000-000000000001")
OLD = HardDrive(1, 2048, 1048576, "aaaaaaaa-0000-4000-8000-000000000002")
OTHER = HardDrive(1, 2048, 1048576, "aaaaaaaa-0000-4000-8000-000000000003")

PXE = LoadOption("UEFI PXEv4", bytes.fromhex("030b2500") + bytes(33) + bytes.fromhex("7fff0400"))
SETUP = LoadOption("UiApp", bytes.fromhex("7fff0400"), attributes=0x109)


def nvram(entries: dict[int, LoadOption], order: tuple[int, ...], current: int | None = None) -> Nvram:
    return Nvram(entries=entries, order=order, current=current)


def plan_for(before: Nvram, policy: str = "network-first", destroyed: tuple[str, ...] = (), drives=(OURS,)):  # type: ignore[no-untyped-def]
    return nvram_plan(
        before,
        drives,
        LOADER,
        description="cloner debian:3",
        policy=policy,  # type: ignore[arg-type]
        destroyed=destroyed,
        live=(OURS.guid, OTHER.guid),
    )


FRESH = nvram({0: SETUP, 1: PXE, 2: msgspec.structs.replace(PXE, description="UEFI PXEv6")}, (0, 2, 1), current=1)


@pytest.mark.parametrize(
    ("before", "policy", "order"),
    [
        pytest.param(FRESH, "network-first", (1, 3, 0, 2), id="network first"),
        pytest.param(FRESH, "local-first", (3, 1, 0, 2), id="local first"),
        pytest.param(nvram({0: SETUP, 5: PXE}, (0, 5)), "network-first", (5, 1, 0), id="BootCurrent unknown"),
        pytest.param(nvram({0: SETUP, 5: PXE}, (0, 5), 0), "network-first", (5, 1, 0), id="BootCurrent not network"),
        pytest.param(nvram({0: SETUP}, (0,)), "network-first", (1, 0), id="no network entry"),
        pytest.param(nvram({}, (7, 8)), "network-first", (0,), id="dangling order"),
        pytest.param(nvram({0: PXE, 1: SETUP}, (1, 0, 1), 0), "network-first", (0, 2, 1), id="double in order"),
    ],
)
def test_the_new_order_is(before: Nvram, policy: str, order: tuple[int, ...]) -> None:
    made = plan_for(before, policy)
    assert made.order == order
    assert made.writes[-1].value == build_order(order)


BBS = LoadOption("Onboard LAN", bytes.fromhex("05010a00800000000000") + bytes.fromhex("7fff0400"))
VENDOR = LoadOption("PXE", bytes.fromhex("010414000102030405060708090a0b0c0d0e0f10") + bytes.fromhex("7fff0400"))
USB = LoadOption("Stick", bytes.fromhex("030506000100") + bytes.fromhex("7fff0400"))
SHELL = LoadOption("Shell", bytes.fromhex("04061400") + bytes(16) + bytes.fromhex("7fff0400"))


@pytest.mark.parametrize(
    ("used", "first"),
    [
        pytest.param(BBS, 7, id="a BBS entry"),
        pytest.param(VENDOR, 7, id="an entry of the vendor's own form"),
        pytest.param(USB, 1, id="iPXE from a stick"),
        pytest.param(SHELL, 1, id="iPXE from the firmware's shell"),
        pytest.param(SETUP, 1, id="the firmware's menu"),
        pytest.param(disk_entry("iPXE", OTHER, LOADER), 1, id="iPXE from a disk"),
    ],
)
def test_the_entry_that_brought_the_node_here_stays_first_whatever_its_form(used: LoadOption, first: int) -> None:
    before = nvram({7: used, 1: PXE, 9: disk_entry("other", OTHER, "\\X")}, (9, 1, 7), current=7)
    made = nvram_plan(
        before,
        (OURS,),
        LOADER,
        description="cloner debian:3",
        policy="network-first",
        destroyed=(),
        live=(OURS.guid, OTHER.guid),
        is_netbooted=True,
    )
    assert made.order[:2] == (first, made.number)


def test_entries_of_former_clones_go_and_those_of_others_stay() -> None:
    before = nvram(
        {
            0: PXE,
            1: disk_entry("cloner debian:2", OLD, LOADER),
            2: disk_entry("ubuntu", OTHER, "\\EFI\\ubuntu\\shimx64.efi"),
            3: disk_entry("windows", OLD, "\\EFI\\Microsoft\\Boot\\bootmgfw.efi"),
            4: disk_entry("cloner data:1", OTHER, LOADER),
        },
        (0, 1, 2, 3, 4),
        current=0,
    )
    made = plan_for(before)
    assert (made.number, made.delete) == (1, ())  # its number is used again
    assert made.order == (0, 1, 2, 3, 4)
    overwritten = plan_for(before, destroyed=(OLD.guid,))
    assert (overwritten.number, overwritten.delete) == (1, ("Boot0003",))
    assert overwritten.order == (0, 1, 2, 4)


def test_the_entry_of_the_former_clone_is_written_over_and_the_order_is_left_alone() -> None:
    before = nvram({0: PXE, 6: disk_entry("cloner debian:2", OLD, LOADER), 7: SETUP}, (0, 6, 7), current=0)
    made = plan_for(before, destroyed=(OLD.guid,))
    assert (made.number, made.delete, made.order) == (6, (), (0, 6, 7))
    assert [write.name for write in made.writes] == ["Boot0006"]


def test_a_mirror_has_an_entry_for_each_of_its_disks() -> None:
    second = msgspec.structs.replace(OURS, guid="aaaaaaaa-0000-4000-8000-000000000009")
    made = plan_for(FRESH, drives=(OURS, second))
    assert made.order == (1, 3, 4, 0, 2)
    assert [entry.option.hard_drive for entry in made.entries] == [OURS, second]
    assert made.entries[1].option.description == "cloner debian:3, disk 2"
    result = read_nvram(after(FRESH, made))
    assert nvram_faults(result, made) == []
    assert nvram_faults(msgspec.structs.replace(result, entries={**result.entries, 4: PXE}), made) == [
        "Boot0004 does not name our loader"
    ]
    other_way = plan_for(result, drives=(second, OURS))
    assert [entry.number for entry in other_way.entries] == [4, 3]


def test_entries_of_a_mirror_that_became_one_disk_are_used_and_removed() -> None:
    gone = msgspec.structs.replace(OLD, guid="aaaaaaaa-0000-4000-8000-000000000009")
    before = nvram(
        {0: PXE, 3: disk_entry("cloner a:1", OLD, LOADER), 4: disk_entry("cloner a:1, disk 2", gone, LOADER)}, (0, 3, 4)
    )
    made = plan_for(before)
    assert (made.number, made.delete, made.order) == (3, ("Boot0004",), (0, 3))


def test_a_second_try_reuses_the_entry_of_the_first_and_removes_its_doubles() -> None:
    mine = disk_entry("cloner debian:3", OURS, LOADER.upper())
    before = nvram({0: PXE, 4: mine, 6: mine, 7: disk_entry("x", OURS, "\\old.efi")}, (0, 4, 6, 7), current=0)
    made = plan_for(before)
    assert made.number == 4
    assert made.delete == ("Boot0006", "Boot0007")
    assert made.order == (0, 4)


def test_an_entry_that_cannot_be_read_is_left_alone() -> None:
    before = read_nvram({"Boot0000": b"rubbish", "Boot0001": build_load_option(PXE), "BootOrder": build_order((0, 1))})
    assert before.unreadable == (0,)
    made = plan_for(before)
    assert (made.number, made.delete, made.order) == (2, (), (1, 2, 0))


def after(before: Nvram, made) -> dict[str, bytes]:  # type: ignore[no-untyped-def]
    variables = {entry_name(number): build_load_option(option) for number, option in before.entries.items()}
    variables["BootOrder"] = build_order(before.order)
    for name in made.delete:
        del variables[name]
    variables.update({write.name: write.value for write in made.writes})
    return variables


def test_what_is_read_back_is_compared() -> None:
    made = plan_for(FRESH)
    assert nvram_faults(read_nvram(after(FRESH, made)), made) == []
    assert nvram_faults(FRESH, made) == [
        "Boot0003 does not name our loader",
        "BootOrder is 0000,0002,0001, want 0001,0003,0000,0002",
    ]
    assert any(
        "Boot0003 'cloner debian:3' HD(1,GPT,aaaaaaaa" in line for line in describe(read_nvram(after(FRESH, made)))
    )


KINDS = [
    PXE,
    SETUP,
    disk_entry("cloner a:1", OLD, LOADER),
    disk_entry("cloner b", OURS, LOADER),
    disk_entry("o", OTHER, "\\x"),
]
ENTRIES = st.dictionaries(st.integers(0, 12), st.sampled_from(KINDS), max_size=8)
NAMES = st.sampled_from(["Boot0000", "BootOrder", "BootCurrent", "Boot0001", "Key0000"])


@given(ENTRIES, st.lists(st.integers(0, 12), max_size=10).map(tuple), st.none() | st.integers(0, 12))
def test_applying_a_plan_always_gives_what_it_promised_and_once_is_enough(
    entries: dict[int, LoadOption], order: tuple[int, ...], current: int | None
) -> None:
    before = nvram(entries, order, current)
    made = plan_for(before)
    result = read_nvram(
        {**after(before, made), **({"BootCurrent": build_order((current,))} if current is not None else {})}
    )
    assert nvram_faults(result, made) == []
    assert made.number in made.order
    assert set(made.order) <= result.entries.keys()
    assert len(set(made.order)) == len(made.order)
    again = plan_for(result)
    assert (again.number, again.order, again.delete, again.writes) == (made.number, made.order, (), ())
    others = [number for number, option in entries.items() if option in (PXE, SETUP)]
    assert all(number in result.entries for number in others)


@given(
    st.dictionaries(
        st.sampled_from(["Boot0000", "BootOrder", "BootCurrent", "Boot0001", "Key0000"]), st.binary(max_size=80)
    )
)
def test_any_variables_are_read(variables: dict[str, bytes]) -> None:
    found = read_nvram(variables)
    assert describe(found)
    assert nvram_faults(read_nvram(after(found, plan_for(found))), plan_for(found)) == []
