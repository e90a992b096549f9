"""The small golden tree with GRUB for BIOS and the tool that makes its core image, as Debian's packages have them."""

from __future__ import annotations

import shutil
from pathlib import Path

from cloner_initramfs import packages
from cloner_initramfs.cache import Cache
from vmlab import host
from vmlab.golden_busybox import golden_busybox
from vmlab.golden_debian import copy_tree

PACKAGES = ("grub-pc-bin", "grub-common")
_LIBRARIES = ("liblzma5", "libdevmapper1.02.1", "libselinux1", "libudev1", "libpcre2-8-0")
_TOOL = "usr/bin/grub-mkimage"


def golden_bios(cache: Cache, place: Path) -> Path:
    """Return a copy of the small golden tree at `place`, which must not exist yet, that BIOS can start."""
    tree = copy_tree(golden_busybox(cache), place)
    more = packages.sysroot(cache, PACKAGES, only=(*PACKAGES, *_LIBRARIES))
    shutil.copy2(more / _TOOL, tree / _TOOL)
    shutil.copytree(more / "usr/lib/grub/i386-pc", tree / "usr/lib/grub/i386-pc")
    libraries = tree / "usr/lib/x86_64-linux-gnu"
    host.run(["cp", "--archive", "--no-clobber", f"{more}/usr/lib/x86_64-linux-gnu/.", libraries])
    return tree
