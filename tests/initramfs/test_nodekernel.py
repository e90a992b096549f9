"""What is taken of a node's kernel: modules by the tables of its release, firmware by what they name."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from cloner_core.errors import InvalidError, NotFoundError, RefusedError
from cloner_core.initrd import read_initrd
from cloner_initramfs.cache import Cache, default_cache
from cloner_initramfs.drivers import build_drivers, unpack_kernel
from cloner_initramfs.nodekernel import NodeKernel, collect, only_release

RELEASE = "5.14.0-70.el9.x86_64"
NVME = "pci:v0000144Dd0000A808sv0sd0bc01sc08i02"
RAID = "pci:v00001000d00000097sv0sd0bc01sc07i00"
STRANGE = "pci:v0000DEADd0000BEEFsv0sd0bc02sc00i00"
MODULES = {
    "kernel/fs/fat/vfat.ko.xz": "kernel/fs/fat/fat.ko.xz",
    "kernel/fs/fat/fat.ko.xz": "",
    "kernel/drivers/nvme/host/nvme.ko.xz": "",
    "kernel/drivers/scsi/odd_raid.ko.xz": "kernel/lib/odd_lib.ko.xz",
    "kernel/lib/odd_lib.ko.xz": "",
    "kernel/drivers/net/wireless/iwl.ko.xz": "",
    "kernel/sound/snd.ko.xz": "",
}
ALIASES = """alias pci:v0000144Dd0000A808sv*sd*bc*sc*i* nvme
alias pci:v00001000d00000097sv*sd*bc*sc*i* odd-raid
"""
FIRMWARE = {
    "odd-raid.ko.xz": [],
    "odd_raid.ko.xz": ["odd/fw.bin", "odd/other.bin"],
    "odd_lib.ko.xz": [],
    "nvme.ko.xz": [],
}


class Programs:
    """Stands for depmod and modinfo."""

    def __init__(self) -> None:
        self.ran: list[list[str]] = []

    def __call__(self, argv: Sequence[str | Path]) -> str:
        words = [str(word) for word in argv]
        self.ran.append(words)
        if words[0] == "depmod":
            (Path(words[2]) / "lib/modules" / words[3] / "modules.dep").write_text("made anew")
            return ""
        return "\n".join(name for path in words[3:] for name in FIRMWARE.get(Path(path).name, []))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    home = tmp_path / "lib/modules" / RELEASE
    for path in MODULES:
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text(path)
    (home / "modules.dep").write_text("".join(f"{path}: {needs}\n" for path, needs in MODULES.items()))
    (home / "modules.builtin").write_text("kernel/drivers/block/loop.ko\nkernel/fs/ext4/ext4.ko\n")
    (home / "modules.alias").write_text(ALIASES)
    (home / "modules.order").write_text("")
    (tmp_path / "boot").mkdir()
    (tmp_path / f"boot/vmlinuz-{RELEASE}").write_bytes(b"kernel")
    (tmp_path / f"boot/config-{RELEASE}").write_text("CONFIG_RD_GZIP=y\nCONFIG_RD_ZSTD=y\n")
    for name in ("lib/firmware/odd/fw.bin.xz", f"lib/firmware/{RELEASE}/odd/other.bin", "lib/firmware/iwl.bin"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def taken(root: Path, *, loaded: Sequence[str] = (), modaliases: Sequence[str] = ()) -> NodeKernel:
    return collect(root, RELEASE, loaded, modaliases, Programs())


def files(found: NodeKernel) -> set[str]:
    return read_initrd([found.layer]).files


def test_modules_come_with_what_they_need_and_no_others(root: Path) -> None:
    found = taken(root, loaded=["odd_raid", "not_a_module"])
    assert found.modules == ("fat", "nvme", "odd_lib", "odd_raid", "vfat")
    assert f"usr/lib/modules/{RELEASE}/kernel/sound/snd.ko.xz" not in files(found)
    assert f"usr/lib/modules/{RELEASE}/modules.builtin" in files(found)
    assert all(path.startswith(("usr/lib/modules/", "usr/lib/firmware/")) for path in files(found))


def test_what_drives_the_fleet_is_taken_and_what_nothing_drives_is_named(root: Path) -> None:
    assert "odd_raid" not in taken(root).modules
    found = taken(root, modaliases=[NVME, RAID, STRANGE])
    assert "odd_raid" in found.modules
    assert found.undriven == (STRANGE,)


def test_firmware_is_that_of_the_modules_in_use_wherever_it_lies_and_however_packed(root: Path) -> None:
    assert taken(root).firmware == 0
    found = taken(root, loaded=["odd-raid"])
    assert found.firmware == 2
    assert {path for path in files(found) if "firmware" in path} == {
        "usr/lib/firmware/odd/fw.bin.xz",
        "usr/lib/firmware/odd/other.bin",
    }


def test_the_tables_are_made_anew_for_what_was_taken(root: Path) -> None:
    programs = Programs()
    found = collect(root, RELEASE, [], [], programs)
    assert programs.ran[0][0] == "depmod"
    initrd = read_initrd([found.layer], lambda path: path.endswith("modules.dep"))
    assert list(initrd.kept.values()) == [b"made anew"]


def test_modules_that_are_lacking_are_named(root: Path) -> None:
    lacking = taken(root).lacking
    assert "btrfs" in lacking
    assert "ext4" not in lacking, "it is built in"


@pytest.mark.parametrize("gone", [f"boot/vmlinuz-{RELEASE}", f"lib/modules/{RELEASE}/modules.dep"])
def test_a_kernel_that_is_not_there_any_more_is_told(root: Path, gone: str) -> None:
    (root / gone).unlink()
    other = root / "lib/modules/6.1.0-other"
    other.mkdir()
    with pytest.raises(NotFoundError, match=RELEASE) as told:
        taken(root)
    assert str(root) in told.value.message
    assert told.value.hint.endswith("with --root" if "modules.dep" in gone else RELEASE)
    (other / "modules.dep").write_text("")
    with pytest.raises(NotFoundError) as told:
        taken(root)
    assert "6.1.0-other" in told.value.hint


def test_a_kernel_beside_its_modules_is_found(root: Path) -> None:
    place = root / "lib/modules" / RELEASE / "vmlinuz"
    shutil.move(root / f"boot/vmlinuz-{RELEASE}", place)
    assert taken(root).kernel == place


def test_a_kernel_that_cannot_unpack_the_userland_is_refused(root: Path) -> None:
    (root / f"boot/config-{RELEASE}").write_text("CONFIG_RD_GZIP=y\n# CONFIG_RD_ZSTD is not set\n")
    with pytest.raises(RefusedError, match="CONFIG_RD_ZSTD"):
        taken(root)


def test_a_kernel_without_what_a_clone_needs_is_refused(root: Path) -> None:
    home = root / "lib/modules" / RELEASE
    (home / "modules.builtin").write_text("")
    with pytest.raises(RefusedError, match="no loop"):
        taken(root)


def test_the_only_kernel_is_found_and_of_several_one_is_to_be_named(root: Path) -> None:
    assert only_release(root) == RELEASE
    other = root / "lib/modules/6.1.0-other"
    other.mkdir()
    (other / "modules.dep").write_text("")
    with pytest.raises(InvalidError, match=f"{RELEASE}, 6.1.0-other"):
        only_release(root)


def test_a_system_without_a_kernel_is_told_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="0 kernels") as told:
        only_release(tmp_path)
    assert "install a kernel" in told.value.hint


@pytest.mark.root
def test_of_debians_kernel_is_taken_what_an_installer_has(tmp_path: Path) -> None:
    """The real tables, depmod and modinfo; the kernel is that of the installer in the tests' cache."""
    cache = Cache(default_cache())
    built = build_drivers(cache, "vm")
    release = unpack_kernel(cache, "linux-image-cloud-amd64", tmp_path / "tree")
    found = collect(tmp_path / "tree", release, ["virtio_net"], [])
    names = read_initrd([found.layer]).modules(release)
    assert built.release == found.release == release
    assert {"virtio_net", "vfat", "btrfs", "raid456"} <= names
    assert found.kernel.stat().st_size > 1 << 20
