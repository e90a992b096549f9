"""Whether an image has what a clone boots with, told from the names of its files alone.

Asked before anything is destroyed; `making` decides in full once the files are there. Must not refuse what `making`
could boot: a name in the right place is enough here.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from cloner_core.bootfiles.sources import GRUB_CONFIGS, SUFFIX, grubs

_KERNELS = ("/boot/vmlinuz-*", *GRUB_CONFIGS)
_ON_ESP = "/EFI/*/grub*.efi"


def is_boot_name(path: str, esp: str) -> bool:
    """Whether `path`, absolute in the clone, can matter to `boot_lacks`; cheap enough for every file of an image."""
    return path.startswith(("/boot/", f"{esp}/")) or path in _LOADERS


def boot_lacks(paths: Iterable[str], esp: str, arch: str) -> tuple[str, ...]:
    """Return what an image with the files `paths` lacks to boot on `arch`, in words; empty when it can boot.

    `esp` is the mount point of the ESP in the clone ("/boot/efi"); the image may have loaders on it.
    """
    names = frozenset(paths)
    config_on_esp = f"{esp.lower()}/efi/*/grub.cfg"
    has_kernel = any(fnmatchcase(name, pattern) for name in names for pattern in _KERNELS)
    has_kernel = has_kernel or any(fnmatchcase(name.lower(), config_on_esp) for name in names)
    pattern = f"{esp}{_ON_ESP}".lower()
    has_grub = any(path in names for path in grubs(arch)) if arch in SUFFIX else False
    has_grub = has_grub or any(fnmatchcase(name.lower(), pattern) for name in names)
    lacking = []
    if not has_kernel:
        lacking.append("a kernel (/boot/vmlinuz-VERSION)")
    if not has_grub:
        lacking.append("a signed GRUB (Debian: packages grub-efi-amd64-signed and shim-signed)")
    return tuple(lacking)


_LOADERS = frozenset(path for arch in SUFFIX for path in grubs(arch))
