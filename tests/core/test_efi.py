"""The codec of EFI boot entries: real bytes, round trips, hostile bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virt.firmware.efi import bootentry, devpath, ucs16

from cloner_core.efi import (
    HardDrive,
    LoadOption,
    build_load_option,
    build_order,
    disk_entry,
    entry_name,
    frame,
    parse_load_option,
    parse_order,
    unframe,
)
from cloner_core.errors import InvalidError

# Laid out by hand after UEFI 2.10 §3.1.3 and §10.3.5: partition 1 (2048, 1048576 sectors), a loader on it.
BY_HAND = bytes.fromhex(
    "0100000062006400650062006900610"
    "06e000000"
    "04012a0001000000"
    "0008000000000000"
    "0000100000000000"
    "f4e2a1ba948f0c42981e77b5176f08b4"
    "0202"
    "04043400"
    "5c004500460049005c00640065006200690061006e005c007300680069006d007800360034002e006500660069000000"
    "7fff0400"
)

GUIDS = st.uuids().map(str)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
DRIVES = st.builds(
    HardDrive,
    number=st.integers(1, 128),
    start_sectors=st.integers(0, (1 << 64) - 1),
    size_sectors=st.integers(0, (1 << 64) - 1),
    guid=GUIDS,
)


def test_an_entry_laid_out_by_hand_is_read_and_written_the_same() -> None:
    option = parse_load_option(BY_HAND)
    assert option.description == "debian"
    assert option.hard_drive == HardDrive(1, 2048, 1048576, "baa1e2f4-8f94-420c-981e-77b5176f08b4")
    assert option.loader == "\\EFI\\debian\\shimx64.efi"
    assert not option.is_network
    assert build_load_option(option) == BY_HAND
    assert disk_entry("debian", option.hard_drive, option.loader) == option


@given(DRIVES)
def test_a_foreign_codec_reads_what_we_write_and_we_read_what_it_writes(drive: HardDrive) -> None:
    ours = build_load_option(disk_entry("cloner debian:3", drive, "\\EFI\\BOOT\\BOOTX64.EFI"))
    theirs = bootentry.BootEntry(data=ours)
    assert str(theirs.title) == "cloner debian:3"
    assert str(theirs.devicepath[0].get_partuuid()) == drive.guid
    assert str(theirs.devicepath[1].get_filepath()) == "\\EFI\\BOOT\\BOOTX64.EFI"
    path = devpath.DevicePath()
    for _ in range(2):
        path.append(devpath.DevicePathElem())
    path[0].set_gpt(drive.number, drive.start_sectors, drive.size_sectors, drive.guid)
    path[1].set_filepath("\\EFI\\BOOT\\BOOTX64.EFI")
    theirs = bootentry.BootEntry(attr=1, title=ucs16.from_string("cloner debian:3"), devicepath=path)
    assert bytes(theirs) == ours


@given(TEXT, DRIVES, TEXT)
def test_an_entry_built_is_read_as_it_was_meant(description: str, drive: HardDrive, loader: str) -> None:
    option = parse_load_option(build_load_option(disk_entry(description, drive, loader)))
    assert (option.description, option.hard_drive, option.loader) == (description, drive, loader)
    assert option.attributes == 1


def test_a_network_entry_is_told_by_its_mac_node() -> None:
    mac = bytes.fromhex("030b2500") + bytes(33)
    option = LoadOption("UEFI PXEv4", mac + bytes.fromhex("7fff0400"))
    assert parse_load_option(build_load_option(option)).is_network
    assert option.hard_drive is None
    assert option.loader == ""


@given(st.binary(max_size=200))
def test_hostile_bytes_are_refused_or_written_back_unchanged(data: bytes) -> None:
    try:
        option = parse_load_option(data)
    except InvalidError:
        return
    assert build_load_option(option) == data
    assert isinstance(option.loader, str)
    assert option.hard_drive is None or option.hard_drive.number >= 0
    assert option.is_network in (True, False)


@given(st.integers(0, len(BY_HAND) - 1), st.integers(0, 255))
def test_a_changed_byte_never_raises_anything_but_our_error(at: int, value: int) -> None:
    data = bytearray(BY_HAND)
    data[at] = value
    try:
        option = parse_load_option(bytes(data))
    except InvalidError:
        return
    assert build_load_option(option) == bytes(data)
    assert isinstance(option.loader, str)


@pytest.mark.parametrize("length", range(0, len(BY_HAND) - 4, 7))
def test_a_cut_entry_is_refused(length: int) -> None:
    with pytest.raises(InvalidError):
        parse_load_option(BY_HAND[:length])


@given(st.lists(st.integers(0, 0xFFFF), max_size=40).map(tuple))
def test_a_boot_order_is_read_as_written(order: tuple[int, ...]) -> None:
    assert parse_order(build_order(order)) == order
    assert parse_order(build_order(order) + b"x") == order


def test_variables_are_named_and_framed_as_efivarfs_wants() -> None:
    assert entry_name(0x1A) == "Boot001A"
    assert frame(b"\1\0") == b"\7\0\0\0\1\0"
    assert unframe(frame(b"value")) == b"value"
