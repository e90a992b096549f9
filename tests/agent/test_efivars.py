"""Firmware variables as files: attributes in front, one write each, full stores told apart from broken ones."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cloner_agent.efivars import EfiVars, NvramFullError
from cloner_core.efi import GLOBAL_GUID


def test_a_variable_is_written_with_its_attributes_and_read_without(tmp_path: Path) -> None:
    variables = EfiVars(tmp_path)
    variables.write("BootOrder", b"\1\0\0\0")
    assert (tmp_path / f"BootOrder-{GLOBAL_GUID}").read_bytes() == b"\7\0\0\0\1\0\0\0"
    assert variables.read("BootOrder") == b"\1\0\0\0"
    variables.write("BootOrder", b"\2\0")
    assert variables.all() == {"BootOrder": b"\2\0"}


def test_variables_of_other_vendors_are_not_ours(tmp_path: Path) -> None:
    (tmp_path / "BootOrder-00000000-0000-0000-0000-000000000000").write_bytes(b"\7\0\0\0x")
    assert EfiVars(tmp_path).all() == {}


def test_deleting_what_is_not_there_is_fine(tmp_path: Path) -> None:
    variables = EfiVars(tmp_path)
    variables.write("Boot0001", b"x")
    variables.delete("Boot0001")
    variables.delete("Boot0001")
    assert variables.read("Boot0001") is None


def test_only_crash_dumps_are_removed_to_make_room(tmp_path: Path) -> None:
    variables = EfiVars(tmp_path)
    variables.write("Boot0001", b"x")
    for number in range(3):
        (tmp_path / f"dump-type0-1-{number}-1700-C-cfc8fc79-be2e-4ddc-97f0-9f98bfe298a0").write_bytes(b"dump")
    assert variables.delete_crash_dumps() == 3
    assert [path.name for path in tmp_path.iterdir()] == [f"Boot0001-{GLOBAL_GUID}"]


def test_a_directory_without_variables_is_no_efi_machine(tmp_path: Path) -> None:
    assert not EfiVars(tmp_path).is_there
    assert not EfiVars(tmp_path / "missing").is_there


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_store_is_told_apart_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / f"Boot0001-{GLOBAL_GUID}").symlink_to("/dev/full")
    with pytest.raises(NvramFullError) as caught:
        EfiVars(tmp_path).write("Boot0001", b"x")
    assert caught.value.errno == errno.ENOSPC
