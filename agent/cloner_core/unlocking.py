"""What an image has to open encrypted devices with, told from the names of its files alone.

Two makers of an initramfs are known, and two programs that bind a container to a TPM. Must not refuse by guess: an
image that lacks one of these cannot open its root.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Final, Literal

import msgspec

from cloner_core.initrd import Initrd
from cloner_core.steps import Opened

_TOOLS: Final = "/usr/sbin/mkinitramfs"
_TOOLS_CRYPT: Final = "/usr/share/initramfs-tools/hooks/cryptroot"  # Debian: cryptsetup-initramfs
_TOOLS_CLEVIS: Final = "/usr/share/initramfs-tools/hooks/clevis"  # clevis-initramfs
_DRACUT: Final = "/usr/bin/dracut"
_DRACUT_CRYPT: Final = "/usr/lib/dracut/modules.d/*crypt/module-setup.sh"
_DRACUT_CLEVIS: Final = "/usr/lib/dracut/modules.d/*clevis-pin-tpm2/module-setup.sh"
_DRACUT_TPM2: Final = "/usr/lib/dracut/modules.d/*tpm2-tss/module-setup.sh"
_CLEVIS: Final = ("/usr/bin/clevis-luks-bind", "/usr/bin/clevis-encrypt-tpm2")
_ENROLL: Final = "/usr/bin/systemd-cryptenroll"
_LATER: Final = ("/usr/lib/systemd/systemd-cryptsetup", "/lib/systemd/systemd-cryptsetup", "/etc/init.d/cryptdisks")

NAMES: Final = (
    *(_TOOLS, _TOOLS_CRYPT, _TOOLS_CLEVIS, _DRACUT, _DRACUT_CRYPT, _DRACUT_CLEVIS, _DRACUT_TPM2),
    *(*_CLEVIS, _ENROLL, *_LATER),
)
"""The closed list of files that matter here; "*" stands for a part of one name."""
_LAST: Final = frozenset(name.rsplit("/", 1)[-1] for name in NAMES)

Sealer = Literal["clevis", "systemd", ""]


class Means(msgspec.Struct, frozen=True):
    """What an image opens encrypted devices with."""

    initramfs: Literal["initramfs-tools", "dracut", ""]  # that can ask for a passphrase; "" none
    sealer: Sealer  # what binds a container to a TPM, and is asked by that initramfs; "" none
    is_good_later: bool  # opens devices of /etc/crypttab once the root is mounted


class Wanted(msgspec.Struct, frozen=True):
    """One device of a layout that the clone opens."""

    name: str  # of the mapping
    way: Literal["tpm2", "passphrase", "random"]
    is_early: bool  # by its initramfs


def is_unlock_name(path: str) -> bool:
    """Whether `path`, absolute in the clone, is one of NAMES; cheap enough for every file of an image."""
    return path.rsplit("/", 1)[-1] in _LAST and any(_matches(path, pattern) for pattern in NAMES)


def means_of(paths: Iterable[str]) -> Means:
    """Return what an image with the files `paths` has; those that are not of NAMES are passed over."""
    here = frozenset(paths)

    def has(pattern: str) -> bool:
        return pattern in here if "*" not in pattern else any(_matches(path, pattern) for path in here)

    has_clevis = all(map(has, _CLEVIS))
    is_good_later = any(map(has, _LATER))
    if has(_TOOLS) and has(_TOOLS_CRYPT):
        return Means("initramfs-tools", "clevis" if has_clevis and has(_TOOLS_CLEVIS) else "", is_good_later)
    if has(_DRACUT) and has(_DRACUT_CRYPT):
        if has_clevis and has(_DRACUT_CLEVIS):
            return Means("dracut", "clevis", is_good_later)
        return Means("dracut", "systemd" if has(_ENROLL) and has(_DRACUT_TPM2) else "", is_good_later)
    return Means("", "", is_good_later)


def unlock_lacks(means: Means, wanted: Sequence[Wanted]) -> tuple[str, ...]:
    """Return what the image lacks to open what is `wanted`, in words; empty when it can."""
    lacking = []
    early = [one.name for one in wanted if one.is_early]
    later = [one.name for one in wanted if not one.is_early]
    by_tpm = [one.name for one in wanted if one.way == "tpm2"]
    if early and not means.initramfs:
        packages = "Debian: package cryptsetup-initramfs; Fedora, RHEL: dracut with its module crypt"
        lacking.append(f"an initramfs that opens {', '.join(early)} ({packages})")
    elif by_tpm and not means.sealer:
        packages = {
            "initramfs-tools": "packages clevis, clevis-tpm2 and clevis-initramfs",
            "dracut": "clevis-dracut, or systemd-cryptenroll and dracut's module tpm2-tss",
        }[means.initramfs]
        lacking.append(f"what has a TPM 2.0 unlock {', '.join(by_tpm)} ({packages})")
    if later and not means.is_good_later:
        lacking.append(f"what opens {', '.join(later)} of /etc/crypttab (systemd-cryptsetup; Debian: cryptsetup)")
    return tuple(lacking)


def initramfs_lacks(initrd: Initrd, means: Means, containers: Sequence[Opened]) -> tuple[str, ...]:
    """Return what `initrd` lacks to open `containers`, in words; empty when it can."""
    lacking = []
    cryptsetup = "usr/lib/systemd/systemd-cryptsetup", "lib/systemd/systemd-cryptsetup"
    if not initrd.has_program("cryptsetup") and not any(path in initrd.files for path in cryptsetup):
        lacking.append("cryptsetup")
    by_tpm = any(one.way == "tpm2" for one in containers)
    if by_tpm and means.sealer == "clevis" and not initrd.has_program("clevis-decrypt-tpm2"):
        lacking.append("clevis with its pin tpm2")
    if by_tpm and means.sealer == "systemd" and not any("libtss2-esys.so" in path for path in initrd.files):
        lacking.append("the libraries of the TPM (dracut's module tpm2-tss)")
    return tuple(lacking)


def _matches(path: str, pattern: str) -> bool:
    return path.count("/") == pattern.count("/") and fnmatchcase(path, pattern)
