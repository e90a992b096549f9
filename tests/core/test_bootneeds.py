"""What an initramfs must have: drivers for this machine's devices, and what the layout lies on."""

from __future__ import annotations

from typing import get_args, get_type_hints

import msgspec
import pytest

from cloner_core.bootneeds import (
    BoundDevice,
    Need,
    device_needs,
    embedded,
    hostonly,
    is_configuration,
    lacks,
    layout_needs,
    rebuild_of,
)
from cloner_core.initrd import Initrd
from cloner_core.kernelmodules import ModuleTable, drivers_of
from cloner_core.layout import Unlock
from cloner_core.layout.types import Array
from cloner_core.plan.values import (
    Plan,
    PlannedArray,
    PlannedCrypt,
    PlannedGroup,
    PlannedLogical,
    PlannedVolume,
)

RELEASE = "6.1.0-50-amd64"
DEP = """\
kernel/drivers/nvme/host/nvme.ko: kernel/drivers/nvme/host/nvme-core.ko
kernel/drivers/nvme/host/nvme-core.ko:
kernel/drivers/block/virtio_blk.ko.xz:
kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko:
kernel/drivers/net/virtio_net.ko:
kernel/fs/xfs/xfs.ko: kernel/lib/libcrc32c.ko
kernel/lib/libcrc32c.ko:
kernel/drivers/md/raid1.ko: kernel/drivers/md/md-mod.ko
kernel/drivers/md/md-mod.ko:
kernel/drivers/md/dm-mod.ko:
kernel/drivers/md/dm-crypt.ko: kernel/drivers/md/dm-mod.ko
"""
ALIAS = """\
# Aliases extracted from modules themselves.
alias pci:v*d*sv*sd*bc01sc08i02* nvme
alias virtio:d00000002v* virtio_blk
alias pci:v00008086d000010D3sv*sd*bc*sc*i* e1000e
alias virtio:d00000001v* virtio_net
"""
BUILTIN = "ahci.alias=pci:v*d*sv*sd*bc01sc06i01*\0ahci.license=GPL\0"
TABLE = ModuleTable.parse(DEP, "", "kernel/drivers/ata/ahci.ko\nkernel/fs/ext4/ext4.ko\n")

NVME = "pci:v0000144Dd0000A808sv0000144Dsd0000A801bc01sc08i02"
AHCI = "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01"
E1000E = "pci:v00008086d000010D3sv00008086sd00000000bc02sc00i00"


def initrd(*modules: str, programs: tuple[str, ...] = (), kept: dict[str, bytes] | None = None) -> Initrd:
    files = {f"lib/modules/{RELEASE}/kernel/x/{name}.ko" for name in modules}
    return Initrd(files | {f"usr/sbin/{name}" for name in programs}, kept or {})


def device(modalias: str, driver: str, module: str = "", *, is_needed: bool = True) -> BoundDevice:
    return BoundDevice("disk /dev/x", driver, module, modalias, is_needed)


def needs(*devices: BoundDevice) -> tuple[Need, ...]:
    return device_needs(devices, TABLE, drivers_of([one.modalias for one in devices], ALIAS, BUILTIN))


def lacking(wanted: tuple[Need, ...], *modules: str) -> list[str]:
    return [what for _, what in lacks(wanted, initrd(*modules), RELEASE, TABLE)]


def test_a_device_needs_the_module_of_the_images_kernel_and_all_it_depends_on() -> None:
    wanted = needs(device(NVME, "nvme", "nvme"))
    assert lacking(wanted) == ["nvme, nvme_core"]
    assert lacking(wanted, "nvme") == ["nvme_core"]
    assert lacking(wanted, "nvme", "nvme-core") == []


def test_a_driver_that_is_built_into_the_agents_kernel_is_found_by_the_alias_of_its_device() -> None:
    assert lacking(needs(device(NVME, "some-other-name"))) == ["nvme, nvme_core"]


def test_a_driver_that_is_built_into_the_images_kernel_is_there() -> None:
    assert lacking(needs(device(AHCI, "ahci", "ahci"))) == []


def test_a_device_that_the_images_kernel_has_no_driver_for_by_any_name_is_not_judged() -> None:
    assert needs(device("acpi:PNP0A08:", "pcieport")) == ()
    assert needs(device("", "virtio_blk", "virtio_blk"))[0].modules == ("virtio_blk",)


def test_a_network_card_matters_to_an_initramfs_that_uses_the_network() -> None:
    wanted = needs(device(E1000E, "e1000e", "e1000e", is_needed=False))
    assert lacking(wanted, "nvme") == []
    assert lacking(wanted, "virtio_net") == ["e1000e"]


def plan(*volumes: PlannedVolume, **stacks: object) -> Plan:
    return Plan("n", "i:1", "ab", "l", (), (), volumes=volumes, **stacks)  # type: ignore[arg-type]


def volume(device: str, mount: str, filesystem: str) -> PlannedVolume:
    return PlannedVolume(device, mount, filesystem, "u", 1, 512, mount=mount)


GROUP = PlannedGroup("vg0", 4, ("/dev/md120",), (PlannedLogical("root", 9),))
MIRROR = PlannedArray("pv", "/dev/md120", "raid1", "1.2", "u", ("/dev/sda2", "/dev/sdb2"), 1, 1, 1)
CRYPT = PlannedCrypt("root", "/dev/sda2", "u", Unlock("tpm2"), "UUID=u", 512)

LAYOUTS = {
    "plain ext4": (plan(volume("/dev/sda2", "/", "ext4")), []),
    "xfs, and data that an initramfs does not mount": (
        plan(volume("/dev/sda2", "/", "xfs"), volume("/dev/sda3", "/srv", "btrfs")),
        ["libcrc32c, xfs"],
    ),
    "a /usr of its own": (
        plan(volume("/dev/sda2", "/", "ext4"), volume("/dev/sda3", "/usr", "xfs")),
        ["libcrc32c, xfs"],
    ),
    "a volume group on a mirror": (
        plan(volume("/dev/mapper/vg0-root", "/", "ext4"), groups=(GROUP,), arrays=(MIRROR,)),
        ["dm_mod", "lvm", "md_mod, raid1", "mdadm"],
    ),
    "arrays of data alone": (
        plan(volume("/dev/sda2", "/", "ext4"), volume("/dev/md120", "/srv", "ext4"), arrays=(MIRROR,)),
        [],
    ),
    "encrypted": (
        plan(volume("/dev/mapper/root", "/", "ext4"), crypts=(CRYPT,)),
        ["dm_crypt, dm_mod", "cryptsetup", "clevis-decrypt-tpm2"],
    ),
    "a filesystem the kernel does not have": (plan(volume("/dev/sda2", "/", "btrfs")), ["btrfs"]),
}


@pytest.mark.parametrize(("made", "missing"), LAYOUTS.values(), ids=LAYOUTS.keys())
def test_a_layout_needs_what_its_root_lies_on(made: Plan, missing: list[str]) -> None:
    assert lacking(layout_needs(made)) == missing


@pytest.mark.parametrize("level", get_args(get_type_hints(Array)["level"]))
def test_every_level_of_a_layout_has_its_module(level: str) -> None:
    array = msgspec.structs.replace(MIRROR, level=level)
    made = plan(volume("/dev/md120", "/", "ext4"), arrays=(array,))
    modules = {name for need in layout_needs(made) for name in need.modules}
    assert modules == {"ext4", {"raid5": "raid456", "raid6": "raid456"}.get(level, level)}


def test_a_program_may_be_systemds_own() -> None:
    found = Initrd({"usr/lib/systemd/systemd-cryptsetup"})
    assert lacks([Need("x", programs=("cryptsetup", "systemd-cryptsetup"))], found, RELEASE, TABLE) == ()
    assert lacks([Need("x", programs=("mdadm",))], initrd(programs=("mdadm",)), RELEASE, TABLE) == ()


def test_an_identifier_that_was_replaced_and_is_still_in_the_initramfs_is_found() -> None:
    old = "5e1f0000-901d-4000-8000-000000005a9e"
    resume = initrd(kept={"conf/conf.d/resume": f"RESUME=UUID={old.upper()}\n".encode(), "etc/fstab": b"/dev/x / y\n"})
    assert embedded(resume, [old]) == ("conf/conf.d/resume",)
    assert embedded(resume, ["1A2B-3C4D", old.replace("5", "6")]) == ()
    assert is_configuration("conf/conf.d/resume")
    assert is_configuration("etc/cmdline.d/95root.conf")
    assert not is_configuration("usr/sbin/mdadm")


REBUILDS = {
    "Debian, beside the kernel on the ESP": ({"/usr/sbin/mkinitramfs"}, "mkinitramfs -o /boot/i 6.1", "zz-cloner"),
    "Fedora": ({"/usr/bin/dracut"}, "/usr/bin/dracut --force --no-hostonly", ""),
    "Arch": ({"/usr/bin/mkinitcpio"}, "/usr/bin/mkinitcpio -S autodetect -k 6.1 -g /boot/i", ""),
}


@pytest.mark.parametrize(("present", "command", "drop_in"), REBUILDS.values(), ids=REBUILDS.keys())
def test_each_distribution_has_its_way_to_make_one_for_any_machine(
    present: set[str], command: str, drop_in: str
) -> None:
    made = rebuild_of(present, "6.1", "/boot/i")
    assert made is not None
    assert " ".join(made.argv).startswith(command)
    assert made.drop_in.endswith(drop_in)
    assert bool(made.drop_in) == bool(drop_in)


def test_debians_own_place_is_made_anew_by_its_own_command() -> None:
    made = rebuild_of({"/usr/sbin/mkinitramfs", "/usr/bin/dracut"}, "6.1", "/boot/initrd.img-6.1")
    assert made is not None
    assert made.argv == ("update-initramfs", "-u", "-k", "6.1")


def test_an_image_without_such_a_tool_has_none() -> None:
    assert rebuild_of(set(), "6.1", "/boot/i") is None


HOSTONLY = {
    "dracut as Fedora has it": ({"/usr/lib/dracut/dracut.conf.d/01-dist.conf": b'hostonly="yes"\n'}, "01-dist.conf"),
    "dracut set right by the site": (
        {
            "/usr/lib/dracut/dracut.conf.d/01-dist.conf": b'hostonly="yes"\n',
            "/etc/dracut.conf.d/any.conf": b'hostonly="no"\n',
        },
        "",
    ),
    "dep": ({"/etc/initramfs-tools/initramfs.conf": b"# x\nMODULES=dep\n"}, "initramfs.conf"),
    "most after dep": (
        {
            "/etc/initramfs-tools/initramfs.conf": b"MODULES=dep\n",
            "/etc/initramfs-tools/conf.d/x": b"MODULES=most\n",
        },
        "",
    ),
    "mkinitcpio as Arch has it": (
        {"/etc/mkinitcpio.conf": b"MODULES=(dep)\n#HOOKS=(base)\nHOOKS=(base udev autodetect modconf block)\n"},
        "mkinitcpio.conf",
    ),
    "mkinitcpio for any machine": ({"/etc/mkinitcpio.conf": b"HOOKS=(base udev modconf block)\n"}, ""),
    "nothing said": ({"/etc/dracut.conf": b"#hostonly=yes\n"}, ""),
}


@pytest.mark.parametrize(("texts", "path"), HOSTONLY.values(), ids=HOSTONLY.keys())
def test_an_initramfs_for_one_machine_is_told_by_its_settings(texts: dict[str, bytes], path: str) -> None:
    told = hostonly(texts)
    assert told.endswith(path)
    assert bool(told) == bool(path)
