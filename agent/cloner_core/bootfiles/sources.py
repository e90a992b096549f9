"""Where distributions keep their EFI loaders and the texts that say how to boot; paths in the clone, absolute."""

from __future__ import annotations

from collections.abc import Set
from typing import Final

SUFFIX: Final = {"x86_64": "x64", "aarch64": "aa64"}
"""The firmware's own name of an architecture, as in BOOTX64.EFI (UEFI 2.10 §3.5.1.1)."""
_GRUB_TARGET: Final = {"x86_64": "x86_64-efi", "aarch64": "arm64-efi"}


def shims(arch: str) -> tuple[str, ...]:
    """Return where a package keeps a signed shim, best first (Debian; Ubuntu's `.latest` is a link)."""
    suffix = SUFFIX[arch]
    names = (f"shim{suffix}.efi.signed", f"shim{suffix}.efi.signed.latest", f"shim{suffix}.efi.dualsigned")
    return tuple(f"/usr/lib/shim/{name}" for name in names)


def grubs(arch: str) -> tuple[str, ...]:
    """Return where a package keeps a GRUB that finds its configuration on the ESP, signed first."""
    suffix, target = SUFFIX[arch], _GRUB_TARGET[arch]
    return (
        f"/usr/lib/grub/{target}-signed/grub{suffix}.efi.signed",
        f"/usr/lib/grub/{target}/monolithic/grub{suffix}.efi",
    )


def mok_managers(arch: str) -> tuple[str, ...]:
    """Return where a package keeps shim's key manager."""
    suffix = SUFFIX[arch]
    return (f"/usr/lib/shim/mm{suffix}.efi.signed", f"/usr/lib/shim/mm{suffix}.efi")


def systemd_boots(arch: str) -> tuple[str, ...]:
    """Return where a package keeps systemd-boot, signed first."""
    name = f"/usr/lib/systemd/boot/efi/systemd-boot{SUFFIX[arch]}.efi"
    return (f"{name}.signed", name)


LOADERS: Final = tuple(
    path for arch in SUFFIX for find in (shims, grubs, mok_managers, systemd_boots) for path in find(arch)
)
"""Files whose presence the agent reports in `Image.present`."""

BIOS_MODULES: Final = "/usr/lib/grub/i386-pc"
"""Where distributions keep GRUB for BIOS; the agent reports its names in `Image.bios`."""
MKIMAGES: Final = ("/usr/bin/grub-mkimage", "/usr/bin/grub2-mkimage")
"""What makes a core image of it; reported in `Image.present`."""

_DRACUT: Final = ("/usr/bin/dracut", "/usr/sbin/dracut")
_NOT_DRACUT: Final = ("/usr/sbin/mkinitramfs", "/usr/bin/mkinitcpio")
INITRAMFS_MAKERS: Final = (*_DRACUT, *_NOT_DRACUT)
"""What makes an initramfs; reported in `Image.present`."""

GRUB_CONFIGS: Final = ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg")
DEFAULT_GRUB: Final = "/etc/default/grub"
GRUB_ENTRIES: Final = "/boot/loader/entries/*.conf"
"""Entries of the Boot Loader Specification that GRUB shows (Fedora, RHEL: `blscfg`)."""
ENTRY_TOKEN: Final = "/etc/kernel/entry-token"
TEXTS: Final = (
    *("/etc/os-release", "/usr/lib/os-release", ENTRY_TOKEN, DEFAULT_GRUB, "/etc/default/grub.d/*.cfg"),
    *(GRUB_ENTRIES, *GRUB_CONFIGS),
)
"""Files whose content the agent gives in `Image.texts` where they exist; the pattern stands for every match."""


def has_dracut(present: Set[str]) -> bool:
    """Whether dracut makes the initramfs of an image that has the files `present`."""
    return not present.isdisjoint(_DRACUT) and present.isdisjoint(_NOT_DRACUT)
