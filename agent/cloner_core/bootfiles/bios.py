"""Boot by BIOS: the modules and the menu of GRUB in the clone, and how its core image is made by the image's own tools.

The core finds the clone by the UUID of a filesystem, never by the place of a disk. Must not know where it is embedded.
"""

from __future__ import annotations

from cloner_core.bootfiles.errors import NotBootableError
from cloner_core.bootfiles.grub import quoted
from cloner_core.bootfiles.image import Image, grub_config_path, kernels_of
from cloner_core.bootfiles.made import BootFilesMade, CopyFile, CoreImage
from cloner_core.bootfiles.making import menu_work
from cloner_core.bootfiles.sources import BIOS_MODULES, MKIMAGES
from cloner_core.steps import BootFiles

CONFIG = "early.cfg"
"""Name of the file with the core's own configuration, as grub-mkimage is given it."""
_KERNEL, _BOOT, _DISK_BOOT = "kernel.img", "boot.img", "diskboot.img"
# Whatever /boot may lie on: all of it is 160 KiB, and what is not in an older GRUB is not asked for.
_MODULES = (
    *("biosdisk", "part_gpt", "part_msdos", "ext2", "xfs", "btrfs", "fat"),
    *("diskfilter", "mdraid1x", "lvm", "raid5rec", "raid6rec"),
    *("search_fs_uuid", "normal", "configfile", "minicmd"),
)


def boot_by_bios(image: Image, action: BootFiles, arch: str) -> BootFilesMade:
    """Return the boot files of a clone that BIOS starts.

    Raises NotBootableError when the image lacks GRUB for BIOS, its tools, or a kernel.
    """
    if arch != "x86_64":
        raise NotBootableError(f"no machine of architecture '{arch}' is started by BIOS")
    mkimage = next((path for path in MKIMAGES if path in image.present), "")
    names = set(image.bios)
    lacking = [f"{BIOS_MODULES}/{one}" for one in (_BOOT, _KERNEL, _DISK_BOOT) if one not in names]
    if lacking or not mkimage:
        raise NotBootableError(
            f"the image has no GRUB for BIOS: it lacks {', '.join((*lacking, *([] if mkimage else MKIMAGES[:1])))}",
            hint="install it on the golden node (Debian: grub-pc-bin and grub2-common) and capture again",
        )
    if grub_config_path(image) not in image.texts and not kernels_of(image.boot):
        raise NotBootableError(
            "the image has no kernel in /boot (vmlinuz-VERSION) and no grub.cfg",
            hint="install a kernel on the golden node and capture it again",
        )
    menu, notes = menu_work(image, action)
    folder = grub_config_path(image).removesuffix("/grub.cfg")  # "/boot/grub", of Fedora "/boot/grub2"
    place = f"{folder}/i386-pc"
    seen = action.boot_path + folder.removeprefix("/boot")
    config = f"search.fs_uuid {action.boot_uuid} root\nset prefix=($root){quoted(seen)}\n".encode()
    modules = [one for one in _MODULES if f"{one}.mod" in names]
    core = f"{place}/core.img"
    argv = (
        *(mkimage, "--format=i386-pc", f"--directory={BIOS_MODULES}", f"--output={core}", f"--prefix={seen}"),
        *(f"--config={{files}}/{CONFIG}", *modules),
    )
    loaded = [one for one in sorted(names) if one.endswith((".mod", ".lst", ".img"))]
    return BootFilesMade(
        files=(*(CopyFile(f"{BIOS_MODULES}/{one}", f"{place}/{one}") for one in loaded), *menu),
        loader="",
        kernels=kernels_of(image.boot),
        notes=notes,
        way="GRUB, started by BIOS",
        core=CoreImage(argv=argv, config=config, path=core, boot_image=f"{place}/{_BOOT}"),
    )
