"""The boot entry is written, ordered behind the network and read back; what the firmware will not keep is said."""

from __future__ import annotations

import struct
from pathlib import Path

import msgspec
import pytest

from agentbench.scene import OLD_GUID, OTHER_GUID, Scene
from cloner_agent.efivars import EfiVars, NvramFullError
from cloner_agent.failures import StageError
from cloner_agent.stages.nvram import put_network_first, write
from cloner_agent.stages.reboot import restart
from cloner_core.efi import GLOBAL_GUID, HardDrive, LoadOption, build_load_option, build_order, disk_entry, parse_order
from cloner_core.messages import Cause
from cloner_core.nvram import read_nvram
from cloner_core.steps import EspPlace, Reboot

MAC_PATH = struct.pack("<BBH", 3, 11, 37) + bytes(33) + struct.pack("<BBH", 0x7F, 0xFF, 4)
LOADER = "\\EFI\\debian\\shimx64.efi"
OTHER_ESP = "ffffffff-0000-4000-8000-00000000000f"


class _Forgetful(EfiVars):
    """Supermicro X10 accepts BootOrder and keeps its own (rhboot/efibootmgr#19)."""

    def write(self, name: str, value: bytes) -> None:
        if name != "BootOrder":
            super().write(name, value)


class _Full(EfiVars):
    """Has no room while crash dumps are in the way."""

    is_hopeless = False

    def write(self, name: str, value: bytes) -> None:
        if self.is_hopeless or list(self.directory.glob("dump-type0-*")):
            raise NvramFullError(28, "full", name)
        super().write(name, value)


class _Narrow(EfiVars):
    """Has no room for a fourth entry."""

    def write(self, name: str, value: bytes) -> None:
        is_new = name.startswith("Boot0") and not (self.directory / f"{name}-{GLOBAL_GUID}").exists()
        if is_new and len(list(self.directory.glob("Boot0*"))) >= 3:
            raise NvramFullError(28, "full", name)
        super().write(name, value)


class _Hopeless(_Full):
    is_hopeless = True


def _scene(tmp_path: Path, kind: type[EfiVars] = EfiVars) -> Scene:
    scene = Scene(tmp_path, kind)
    scene.attempt.record.loader = LOADER
    variables = EfiVars(scene.efivars)
    old = disk_entry("debian", HardDrive(1, 2048, 4096, OLD_GUID), LOADER)
    other = disk_entry("windows", HardDrive(1, 2048, 4096, OTHER_GUID), "\\EFI\\Microsoft\\bootmgfw.efi")
    variables.write("Boot0000", build_load_option(old))
    variables.write("Boot0001", build_load_option(LoadOption("UEFI PXEv4", MAC_PATH)))
    variables.write("Boot0002", build_load_option(other))
    variables.write("BootOrder", build_order((0, 2, 1)))
    variables.write("BootCurrent", build_order((1,)))
    return scene


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return _scene(tmp_path)


def _variables(scene: Scene) -> dict[str, bytes]:
    return EfiVars(scene.efivars).all()


def test_network_first_ours_second_the_rest_after_and_the_stale_entry_gone(scene: Scene) -> None:
    write(scene.attempt, scene.nvram())
    after = read_nvram(_variables(scene))
    ours = scene.attempt.record.boot_number
    assert ours is not None
    assert after.order == (1, ours, 2)
    assert "debian" not in {option.description for option in after.entries.values()}
    drive = after.entries[ours].hard_drive
    assert drive is not None
    assert drive.guid == scene.attempt.plan.partitions[0].part_uuid
    assert scene.attempt.record.nvram_before[0] == "BootOrder 0000,0002,0001"
    assert scene.attempt.record.nvram_after[0].startswith("BootOrder 0001,")


def test_the_network_comes_first_before_the_disk_can_boot(scene: Scene) -> None:
    put_network_first(scene.attempt)
    assert read_nvram(_variables(scene)).order == (1, 0, 2)
    assert scene.attempt.tools.reporter.notes == []
    once = _variables(scene)
    put_network_first(scene.attempt)
    assert _variables(scene) == once


def test_the_receipt_has_the_order_as_the_deploy_found_it(scene: Scene) -> None:
    put_network_first(scene.attempt)
    write(scene.attempt, scene.nvram())
    assert scene.attempt.record.nvram_before[0] == "BootOrder 0000,0002,0001"


@pytest.mark.parametrize(("kind", "why"), [(_Forgetful, "BootOrder is 0000,0002,0001"), (_Hopeless, "store is full")])
def test_a_firmware_that_cannot_put_the_network_first_is_worth_a_word(
    tmp_path: Path, kind: type[EfiVars], why: str
) -> None:
    scene = _scene(tmp_path, kind)
    put_network_first(scene.attempt)
    (note,) = scene.attempt.tools.reporter.notes
    assert why in note


def test_a_firmware_without_an_entry_for_the_network_keeps_its_order(scene: Scene) -> None:
    variables = EfiVars(scene.efivars)
    variables.delete("Boot0001")
    variables.delete("BootCurrent")
    put_network_first(scene.attempt)
    assert read_nvram(_variables(scene)).order == (0, 2, 1)


def test_each_disk_of_a_mirror_has_an_entry_behind_the_network(scene: Scene) -> None:
    copy = EspPlace(1, OTHER_ESP, 2048, 4096)
    write(scene.attempt, msgspec.structs.replace(scene.nvram(), copies=(copy,)))
    after = read_nvram(_variables(scene))
    first, second = after.order[1:3]
    assert after.order == (1, first, second, 2)
    drives = [after.entries[number].hard_drive for number in (first, second)]
    assert [drive.guid for drive in drives if drive] == [scene.attempt.plan.partitions[0].part_uuid, OTHER_ESP]
    assert scene.attempt.record.boot_number == first


def test_a_store_with_room_for_one_entry_boots_the_first_disk_of_a_mirror(tmp_path: Path) -> None:
    scene = _scene(tmp_path, _Narrow)
    write(scene.attempt, msgspec.structs.replace(scene.nvram(), copies=(EspPlace(1, OTHER_ESP, 2048, 4096),)))
    after = read_nvram(_variables(scene))
    assert after.order == (1, scene.attempt.record.boot_number, 2)
    (note,) = scene.attempt.tools.reporter.notes
    assert "no room for an entry of each disk" in note


def test_the_next_clone_of_a_machine_writes_its_entry_over_the_last_one(scene: Scene) -> None:
    former = disk_entry("cloner debian:2", HardDrive(1, 2048, 4096, OLD_GUID), LOADER)
    EfiVars(scene.efivars).write("Boot0000", build_load_option(former))
    write(scene.attempt, scene.nvram())
    assert scene.attempt.record.boot_number == 0
    assert read_nvram(_variables(scene)).order == (1, 0, 2)
    assert len(read_nvram(_variables(scene)).entries) == 3


def test_writing_twice_changes_nothing_more(scene: Scene) -> None:
    write(scene.attempt, scene.nvram())
    once = _variables(scene)
    write(scene.attempt, scene.nvram())
    assert _variables(scene) == once


def test_firmware_that_forgets_is_found_out(tmp_path: Path) -> None:
    scene = _scene(tmp_path, _Forgetful)
    with pytest.raises(StageError, match="BootOrder is") as caught:
        write(scene.attempt, scene.nvram())
    assert caught.value.cause is Cause.NVRAM


def test_a_store_full_of_crash_dumps_is_cleared(tmp_path: Path) -> None:
    scene = _scene(tmp_path, _Full)
    for number in range(2):
        (scene.efivars / f"dump-type0-{number}-x").write_bytes(b"dump")
    write(scene.attempt, scene.nvram())
    assert scene.attempt.record.boot_number is not None
    assert scene.attempt.tools.reporter.notes == []


def test_a_store_that_stays_full_is_noted_and_the_fallback_path_boots(tmp_path: Path) -> None:
    scene = _scene(tmp_path, _Hopeless)
    write(scene.attempt, scene.nvram())
    assert scene.attempt.record.boot_number is None
    assert "BOOTX64.EFI" in scene.attempt.tools.reporter.notes[0]


def test_a_machine_that_shows_no_variables_is_refused(scene: Scene) -> None:
    for path in scene.efivars.iterdir():
        path.unlink()
    with pytest.raises(StageError) as caught:
        write(scene.attempt, scene.nvram())
    assert caught.value.cause is Cause.NVRAM


def test_the_next_boot_is_from_the_new_entry(scene: Scene) -> None:
    write(scene.attempt, scene.nvram())
    restart(scene.attempt, Reboot())
    assert parse_order(_variables(scene)["BootNext"]) == (scene.attempt.record.boot_number,)
    assert scene.happened[-2:] == ["sync", "reboot"]
    assert scene.server.said == ["rebooting"]


def test_a_firmware_without_an_entry_for_the_network_is_worth_a_word(tmp_path: Path) -> None:
    scene = _scene(tmp_path)
    variables = EfiVars(scene.efivars)
    variables.delete("Boot0001")
    variables.delete("BootCurrent")
    variables.write("BootOrder", build_order((0, 2)))
    write(scene.attempt, scene.nvram())
    assert any("no boot entry for the network" in note for note in scene.attempt.tools.reporter.notes)
