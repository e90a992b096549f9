"""fix-efiboot on a machine that is not here: its ESPs are directories, its firmware variables files."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest

from agentbench.runner import FakeRunner
from agentbench.sysfs import Sysfs
from cloner_agent.efiboot import System, fix_efi_boot
from cloner_agent.efivars import EfiVars
from cloner_core.efi import HardDrive, LoadOption, build_load_option, build_order, disk_entry
from cloner_core.efiboot import ESP_TYPE
from cloner_core.errors import ClonerError, RefusedError
from cloner_core.facts import Disk, DiskPartition
from cloner_core.nvram import read_nvram
from cloner_core.sizes import GIB, MIB

LOADER = "\\EFI\\debian\\shimx64.efi"
GUIDS = {name: f"aaaaaaaa-0000-4000-8000-00000000000{index}" for index, name in enumerate(("vda", "vdb", "vdc"))}
PXE = LoadOption("UEFI PXEv4", bytes.fromhex("030b2500") + bytes(33) + bytes.fromhex("7fff0400"))


@dataclass(frozen=True)
class Bench:
    """A mirror of vda and vdb with / on it, and vdc with another system."""

    system: System
    esps: dict[str, Path]

    def nvram(self, **entries: LoadOption) -> None:
        for name, option in entries.items():
            self.system.efivars.write(name, build_load_option(option))
        self.system.efivars.write("BootOrder", build_order(tuple(int(name[4:], 16) for name in entries)))

    def order(self) -> tuple[int, ...]:
        return read_nvram(self.system.efivars.all()).order


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return make(tmp_path, EfiVars)


def make(tmp_path: Path, kind: type[EfiVars]) -> Bench:
    sysfs = Sysfs(tmp_path / "root")
    esps, disks = {}, []
    for index, name in enumerate(GUIDS):
        sysfs.disk(name, f"254:{16 * index}", at=f"pci/{index}")
        for number in (1, 2):
            sysfs.partition(name, f"{name}{number}", f"254:{16 * index + number}")
        esp = DiskPartition(1, MIB, 64 * MIB, ESP_TYPE, GUIDS[name])
        disks.append(Disk(f"/dev/{name}", GIB, partitions=(esp, DiskPartition(2, 65 * MIB, MIB))))
        esps[f"/dev/{name}1"] = tmp_path / f"{name}1"
        for path in ("EFI/debian/shimx64.efi", "EFI/debian/grubx64.efi"):
            file = tmp_path / f"{name}1" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"MZ " + path.encode())
    sysfs.write("sys/class/block/md127/dev", "9:127\n")
    for name in ("vda2", "vdb2"):
        sysfs.hold(name, "md127")
    sysfs.append("proc/self/mountinfo", "2 1 9:127 / / rw - ext4 /dev/md127 rw")
    sysfs.append("proc/self/mountinfo", "3 2 254:17 / /boot/efi rw - vfat /dev/vdb1 rw")
    sysfs.write("etc/os-release", "ID=debian\nNAME=Debian\n")
    variables = kind(tmp_path / "efivars")
    variables.directory.mkdir()
    (variables.directory / "other").write_bytes(b"")
    system = System(
        FakeRunner(),
        tuple(disks),
        variables,
        root=str(tmp_path / "root"),
        arch="x86_64",
        open_esp=lambda device: nullcontext(str(esps[device])),
    )
    return Bench(system, esps)


@pytest.mark.root
def test_each_disk_of_the_mirror_gets_an_entry_and_the_fallback_and_strangers_stay(bench: Bench) -> None:
    dead = disk_entry("cloner old", HardDrive(1, 1, 1, "dddddddd-0000-4000-8000-00000000000d"), LOADER)
    stranger = disk_entry("debian", HardDrive(1, 2048, 131072, GUIDS["vdc"]), LOADER)
    bench.nvram(Boot0001=stranger, Boot0002=dead, Boot0003=PXE)
    done = fix_efi_boot(bench.system, boot_order="network-first")
    assert done.esps == ("/dev/vdb1", "/dev/vda1")  # the mounted one first
    after = read_nvram(bench.system.efivars.all())
    assert after.order == (3, 2, 0, 1)
    assert [option.hard_drive.guid for number in (2, 0) if (option := after.entries[number]).hard_drive] == [
        GUIDS["vdb"],
        GUIDS["vda"],
    ]
    assert after.entries[1] == stranger
    assert after.entries[2].hard_drive == HardDrive(1, 2048, 131072, GUIDS["vdb"])
    for device in ("/dev/vda1", "/dev/vdb1"):
        fallback = bench.esps[device] / "EFI/BOOT"
        assert (fallback / "BOOTX64.EFI").read_bytes() == b"MZ EFI/debian/shimx64.efi"
        assert (fallback / "grubx64.efi").exists()
    assert not (bench.esps["/dev/vdc1"] / "EFI/BOOT").exists()
    again = fix_efi_boot(bench.system, boot_order="network-first")
    assert (again.before, again.copied) == (again.after, ())


@pytest.mark.root
def test_a_dry_run_says_what_happens_and_changes_nothing(bench: Bench) -> None:
    bench.nvram(Boot0003=PXE)
    before = bench.system.efivars.all()
    said = fix_efi_boot(bench.system, boot_order="local-first", is_dry=True)
    assert bench.system.efivars.all() == before
    assert not (bench.esps["/dev/vdb1"] / "EFI/BOOT").exists()
    done = fix_efi_boot(bench.system, boot_order="local-first")
    assert (said.before, said.after, said.copied) == (done.before, done.after, done.copied)
    assert bench.order() == (0, 1, 3)


@pytest.mark.root
def test_a_copy_of_the_esp_is_brought_in_step(bench: Bench) -> None:
    bench.nvram(Boot0003=PXE)
    (bench.esps["/dev/vdb1"] / "EFI/debian/grubx64.efi").write_bytes(b"MZ new")
    done = fix_efi_boot(bench.system, boot_order="network-first")
    assert "/dev/vda1: EFI/debian/grubx64.efi" in done.copied
    assert (bench.esps["/dev/vda1"] / "EFI/debian/grubx64.efi").read_bytes() == b"MZ new"


def test_the_mounted_esp_is_the_source_though_its_disk_has_another(bench: Bench) -> None:
    mirror, mounted, stranger = bench.system.disks
    second = DiskPartition(3, 66 * MIB, 64 * MIB, ESP_TYPE, "bbbbbbbb-0000-4000-8000-00000000000b")
    mounted = msgspec.structs.replace(mounted, partitions=(*mounted.partitions, second))
    system = replace(bench.system, disks=(mirror, mounted, stranger))
    (bench.esps["/dev/vda1"] / "EFI/debian/grubx64.efi").write_bytes(b"MZ outdated")
    done = fix_efi_boot(system, boot_order="network-first", is_dry=True)
    assert done.esps == ("/dev/vdb1", "/dev/vda1")
    assert "/dev/vda1: EFI/debian/grubx64.efi" in done.copied
    assert "/dev/vdb1: EFI/debian/grubx64.efi" not in done.copied


def test_an_esp_without_our_loader_is_left_alone_and_it_is_said(bench: Bench) -> None:
    (bench.esps["/dev/vda1"] / "EFI/debian/shimx64.efi").unlink()
    done = fix_efi_boot(bench.system, boot_order="network-first", is_dry=True)
    assert done.esps == ("/dev/vdb1",)
    assert "/dev/vda1 lacks EFI/debian/shimx64.efi" in done.notes[0]


class _Forgetful(EfiVars):
    def write(self, name: str, value: bytes) -> None:
        pass


@pytest.mark.root
def test_firmware_that_keeps_nothing_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ClonerError, match="did not keep"):
        fix_efi_boot(make(tmp_path, _Forgetful).system, boot_order="network-first")


def test_a_machine_without_variables_or_esp_is_refused(bench: Bench, tmp_path: Path) -> None:
    blank = System(FakeRunner(), bench.system.disks, EfiVars(tmp_path / "none"))
    with pytest.raises(RefusedError, match="no firmware variables"):
        fix_efi_boot(blank, boot_order="network-first")
    bare = System(FakeRunner(), (), bench.system.efivars, root=bench.system.root)
    with pytest.raises(RefusedError, match="no EFI system partition"):
        fix_efi_boot(bare, boot_order="network-first")
