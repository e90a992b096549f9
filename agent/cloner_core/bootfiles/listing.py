"""Whether an image has what a clone boots with, told from the names of its files alone.

Asked before anything is destroyed; `making` decides in full once the files are there. Must not refuse what `making`
could boot: a name in the right place is enough here.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from cloner_core.bootfiles.sources import BIOS_MODULES, GRUB_CONFIGS, MKIMAGES, SUFFIX, grubs, systemd_boots

_KERNELS = ("/boot/vmlinuz-*", *GRUB_CONFIGS)
_UNIFIED = "/EFI/Linux/*.efi"


def is_boot_name(path: str, esp: str) -> bool:
    """Whether `path`, absolute in the clone, can matter to `boot_lacks`; cheap enough for every file of an image."""
    return path.startswith(("/boot/", f"{esp or '/boot'}/")) or path in _LOADERS


def boot_lacks(paths: Iterable[str], esp: str, arch: str) -> tuple[str, ...]:
    """Return what an image with the files `paths` lacks to boot on `arch`, in words; empty when it can boot.

    `esp` is the mount point of the ESP in the clone ("/boot/efi"); the image may have loaders on it. "" is for a
    machine that BIOS starts.
    """
    names = frozenset(paths)
    if not esp:
        return _lacks_by_bios(names)
    folded = [name.lower() for name in names]

    def has(*patterns: str) -> bool:
        return any(fnmatchcase(name, f"{esp}{pattern}".lower()) for name in folded for pattern in patterns)

    unified = has(_UNIFIED)
    has_kernel = any(fnmatchcase(name, pattern) for name in names for pattern in _KERNELS)
    has_kernel = has_kernel or unified or has("/EFI/*/grub.cfg", "/loader/entries/*.conf")
    packaged = (*grubs(arch), *systemd_boots(arch)) if arch in SUFFIX else ()
    has_loader = any(path in names for path in packaged)
    has_loader = has_loader or unified or has("/EFI/*/grub*.efi", "/EFI/systemd/systemd-boot*.efi")
    lacking = []
    if not has_kernel:
        lacking.append("a kernel (/boot/vmlinuz-VERSION)")
    if not has_loader:
        lacking.append("a signed GRUB (Debian: packages grub-efi-amd64-signed and shim-signed)")
    return tuple(lacking)


def _lacks_by_bios(names: frozenset[str]) -> tuple[str, ...]:
    lacking = []
    if not any(fnmatchcase(name, pattern) for name in names for pattern in _KERNELS):
        lacking.append("a kernel (/boot/vmlinuz-VERSION)")
    if not (names >= _BIOS and names & set(MKIMAGES)):
        lacking.append("GRUB for BIOS and its tools (Debian: packages grub-pc-bin and grub2-common)")
    return tuple(lacking)


_BIOS = frozenset(f"{BIOS_MODULES}/{name}" for name in ("boot.img", "diskboot.img", "kernel.img"))
_LOADERS = {path for arch in SUFFIX for path in (*grubs(arch), *systemd_boots(arch))} | _BIOS | set(MKIMAGES)
