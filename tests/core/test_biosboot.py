"""Boot code for BIOS: byte for byte where GRUB's own tool puts it, and the partition table is left alone.

What is made here is what grub-bios-setup 2.06 writes with --no-rs-codes; that was compared once, and a machine that
boots from it is in vm-tests.
"""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbench.programs import grub_core
from cloner_core.biosboot import boot_sector, embedded_core, stub_sector
from cloner_core.errors import InvalidError

BOOT = bytes(range(200)) + bytes(310) + b"\x55\xaa"
SECTORS = st.binary(min_size=512, max_size=512)


@given(SECTORS)
def test_the_stub_goes_on_and_leaves_the_partition_table_alone(current: bytes) -> None:
    made = stub_sector(current)
    assert made[:2] == b"\xcd\x18"
    assert made[440:510] == current[440:510]
    assert made[510:] == b"\x55\xaa"
    assert stub_sector(made) == made


@given(SECTORS, st.integers(1, 1 << 40))
def test_the_boot_code_names_the_core_and_leaves_the_partition_table_alone(current: bytes, sector: int) -> None:
    made = boot_sector(current, BOOT, sector)
    assert struct.unpack_from("<Q", made, 0x5C) == (sector,)
    assert made[0x64] == 0xFF
    assert made[0x66:0x68] == b"\x90\x90"
    assert made[440:510] == current[440:510]
    changed = {0x64, 0x66, 0x67, *range(0x5C, 0x64)}
    assert [at for at in range(440) if made[at] != BOOT[at] and at not in changed] == []


@given(st.integers(1, 300 * 512), st.integers(1, 1 << 40))
def test_the_core_names_what_is_behind_its_first_sector(more_bytes: int, sector: int) -> None:
    core = grub_core(512 + more_bytes)
    made = embedded_core(core, sector)
    assert len(made) % 512 == 0
    start, count, segment = struct.unpack_from("<QHH", made, 500)
    assert (start, (count + 1) * 512, segment) == (sector + 1, len(made), 0x820)
    assert made[:500] == core[:500]
    assert made[512 : len(core)] == core[512:]


@pytest.mark.parametrize("core", [b"", bytes(512), bytes(2048), grub_core(2048)[:-600], grub_core(1024) + bytes(1024)])
def test_what_is_no_core_for_disks_is_refused(core: bytes) -> None:
    with pytest.raises(InvalidError):
        embedded_core(core, 1)


def test_what_is_no_boot_sector_is_refused() -> None:
    for image in (b"", bytes(512), BOOT + b"x"):
        with pytest.raises(InvalidError):
            boot_sector(bytes(512), image, 1)
    with pytest.raises(InvalidError):
        stub_sector(b"short")
