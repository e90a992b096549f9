"""The drivers layer: one kernel and the modules a node needs to see its disks and network.

Two flavours: `vm` (Debian's cloud kernel, virtual hardware) and `full` (the generic kernel, real hardware as well).
Must hold nothing of the agent: the base layer serves every kernel.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from cloner_core import newc
from cloner_core.errors import ClonerError, InvalidError
from cloner_core.kernelmodules import ModuleTable
from cloner_initramfs import host, packages
from cloner_initramfs.cache import Cache, key_of
from cloner_initramfs.layer import Layer, entries_of, load, store

KERNEL_NAME = "vmlinuz"
RELEASE_NAME = "release"
KEPT_DRIVERS = 2


@dataclass(frozen=True, slots=True)
class Flavour:
    """Which kernel, and which of its modules."""

    name: str
    package: str  # Debian's meta package of the kernel
    wanted: tuple[str, ...]  # must be there, as module or built in
    optional: tuple[str, ...] = ()  # taken when this kernel has them
    directories: tuple[str, ...] = ()  # taken whole


# Filesystems of a target, and what the kernel asks for by name when it mounts them.
FILESYSTEMS = ("ext4", "vfat", "nls_cp437", "nls_ascii", "nls_utf8", "nls_iso8859_1", "efivarfs", "loop")
VIRTUAL = ("virtio_pci", "virtio_net", "virtio_blk", "virtio_scsi", "virtio_rng", "nvme", "sd_mod")
# What a layout may build: arrays, volumes, encryption, btrfs and xfs; snapshots stand before members of arrays while
# their node is captured at rest. The TPM's drivers are built into both kernels.
VOLUMES = (
    "md_mod",
    "linear",
    "raid0",
    "raid1",
    "raid10",
    "raid456",
    "dm_mod",
    "dm_crypt",
    "dm_mirror",
    "dm_raid",
    "dm_snapshot",
)
VOLUME_FILESYSTEMS = ("btrfs", "xfs")
ENCRYPTION = (
    "xts",
    "ecb",
    "cbc",
    "essiv",
    "aesni_intel",
    "sha256_ssse3",
    "sha512_generic",
    "sha512_ssse3",
    "algif_skcipher",
)
# Enclosures tell their slots, device handlers the better path; cards in slots; disks behind Intel's VMD.
BAYS = ("sg", "ses", "scsi_dh_alua", "scsi_dh_rdac", "mmc_block", "sdhci_pci", "sdhci_acpi", "vmd")
CHECKSUMS = ("crc32c_intel", "crc32c_generic", "crc32_pclmul", "crct10dif_pclmul")

FLAVOURS = {
    "vm": Flavour(
        "vm",
        "linux-image-cloud-amd64",
        (*FILESYSTEMS, *VIRTUAL, *VOLUMES, *VOLUME_FILESYSTEMS),
        (
            *CHECKSUMS,
            *ENCRYPTION,
            "hv_netvsc",
            "hv_storvsc",
            "xen_blkfront",
            "xen_netfront",
            "vmxnet3",
            "vmw_pvscsi",
            "ena",
        ),
    ),
    "full": Flavour(
        "full",
        "linux-image-amd64",
        (
            *FILESYSTEMS,
            *VIRTUAL,
            *VOLUMES,
            *VOLUME_FILESYSTEMS,
            "ahci",
            "ata_piix",
            "e1000",
            "e1000e",
            "igb",
            "ixgbe",
            "r8169",
            "tg3",
            "usb_storage",
        ),
        (*CHECKSUMS, *ENCRYPTION, *BAYS, "mpt3sas", "megaraid_sas", "hpsa", "aacraid", "smartpqi", "qemu_fw_cfg"),
        directories=(
            "kernel/drivers/ata",
            "kernel/drivers/nvme/host",
            "kernel/drivers/net/ethernet",
            "kernel/drivers/usb/host",
            "kernel/drivers/hid/usbhid",
        ),
    ),
}


@dataclass(frozen=True, slots=True)
class Drivers:
    """A kernel with its layer."""

    layer: Layer
    kernel: Path
    release: str  # as uname -r says


def build_drivers(cache: Cache, flavour: str = "vm") -> Drivers:
    """Build a flavour's layer, or return it from the cache when apt offers the same kernel as before.

    Raises InvalidError for an unknown flavour, or naming each wanted module this kernel lacks.
    """
    if flavour not in FLAVOURS:
        raise InvalidError(f"no drivers flavour {flavour!r}", hint=f"there are {', '.join(FLAVOURS)}")
    chosen = FLAVOURS[flavour]
    image = kernel_archive(cache, chosen.package)
    key = key_of([image.file, image.digest, repr(chosen), Path(__file__).read_bytes()])

    def make(place: Path) -> None:
        tree, root = place / "tree", place / "root"
        release = unpack_kernel(cache, chosen.package, tree)
        shutil.copy2(tree / f"boot/vmlinuz-{release}", place / KERNEL_NAME)
        (place / RELEASE_NAME).write_text(release)
        packages.merge_directories(root)
        stage_modules(tree, root, release, chosen)
        store(place, newc.with_parents(entries_of(root)))
        shutil.rmtree(tree)
        shutil.rmtree(root)

    place = cache.entry(f"drivers-{flavour}", key, make)
    cache.forget_old(f"drivers-{flavour}", keep=KEPT_DRIVERS)
    layer = load(f"drivers-{flavour}", place)
    return Drivers(layer, place / KERNEL_NAME, (place / RELEASE_NAME).read_text())


def unpack_kernel(cache: Cache, package: str, tree: Path) -> str:
    """Unpack the kernel a meta package stands for into a new directory, tables of modules made; return its release."""
    archive = kernel_archive(cache, package)
    packages.merge_directories(tree)
    packages.unpack(packages.fetch(cache, [package]) / archive.file, tree)
    (release,) = (path.name for path in (tree / "usr/lib/modules").iterdir())
    host.run(["depmod", "-b", tree, release])
    return release


def stage_modules(tree: Path, root: Path, release: str, flavour: Flavour) -> None:
    """Copy the modules of a flavour from an unpacked kernel, chosen by its tables, and make tables for them."""
    modules = tree / "usr/lib/modules" / release
    table = ModuleTable.parse(
        (modules / "modules.dep").read_text(),
        (modules / "modules.softdep").read_text(),
        (modules / "modules.builtin").read_text(),
    )
    target = root / "usr/lib/modules" / release
    for path in table.closure([*flavour.wanted, *table.beneath(flavour.directories)], optional=flavour.optional):
        place = target / path
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(modules / path, place)
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        shutil.copy2(modules / name, target / name)
    host.run(["depmod", "-b", root, release])


def kernel_archive(cache: Cache, package: str) -> packages.Archive:
    """Return the one package that holds the kernel the meta package stands for."""
    resolved = packages.resolve(cache, [package])
    images = [one for one in resolved if one.package.startswith("linux-image-") and one.package != package]
    if len(images) != 1:
        raise ClonerError(f"{package} stands for {len(images)} kernel images, wanted exactly one")
    return images[0]
