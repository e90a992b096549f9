"""Choosing by what a clone boots: one rule, from what the image has, so that the same image always boots alike.

1. systemd-boot, where someone had put it on the image's ESP and it finds a kernel there;
2. GRUB, behind shim where the image has one;
3. systemd-boot of a package, where it finds a kernel on the ESP;
4. a unified kernel image, started by the firmware itself.

By BIOS there is GRUB alone.
"""

from __future__ import annotations

import msgspec

from cloner_core.bootfiles import systemdboot
from cloner_core.bootfiles.bios import boot_by_bios
from cloner_core.bootfiles.errors import NotBootableError
from cloner_core.bootfiles.image import Image, kernels_of
from cloner_core.bootfiles.made import BootFilesMade, CopyFile, FileWork, RemoveFile
from cloner_core.bootfiles.making import boot_by_grub, has_grub
from cloner_core.bootfiles.sources import SUFFIX, has_dracut
from cloner_core.bootfiles.unified import newest, unified_fault
from cloner_core.steps import BootFiles


def boot_files(image: Image, action: BootFiles, arch: str = "x86_64") -> BootFilesMade:
    """Return the boot files for `image` after the plan's `action`; paths are absolute in the clone.

    Raises NotBootableError when the image has no loader for `arch`, or no kernel that finds the root of a clone.
    """
    if action.dracut_arguments and has_dracut(image.present):
        together = (*action.dracut_arguments, *action.kernel_arguments)
        action = msgspec.structs.replace(action, kernel_arguments=together, dracut_arguments=())
    if not action.esp:
        return boot_by_bios(image, action, arch)
    if arch not in SUFFIX:
        raise NotBootableError(f"no EFI loader is known for architecture '{arch}'")
    unfit = {path: fault for path, line in image.unified.items() if (fault := _fault(line, action))}
    fit = sorted(image.unified.keys() - unfit.keys())
    is_fed = bool(fit or systemdboot.entries(image, arch))
    if systemdboot.installed(image, arch) and is_fed:
        return _by_systemd_boot(image, action, arch, unfit, fit)
    if has_grub(image, action.esp, arch):
        return boot_by_grub(image, action, arch)
    if systemdboot.source(image, action.esp, arch) and is_fed:
        return _by_systemd_boot(image, action, arch, unfit, fit)
    if fit:
        return _by_unified(image, action, arch, unfit, fit)
    if unfit:
        told = "; ".join(f"{path}: {fault}" for path, fault in sorted(unfit.items()))
        raise NotBootableError(
            f"no unified kernel image finds the root of a clone: {told}",
            hint="build it with root=LABEL=…, or without root= for a root that systemd finds by its partition type, "
            "and capture the golden node again",
        )
    return boot_by_grub(image, action, arch)  # which says what is missing


def _fault(command_line: str, action: BootFiles) -> str:
    return unified_fault(command_line, root=action.root, root_part_uuid=action.root_part_uuid)


def _by_systemd_boot(
    image: Image, action: BootFiles, arch: str, unfit: dict[str, str], fit: list[str]
) -> BootFilesMade:
    files = list(systemdboot.place(image, action, arch))
    files += _without(action.esp, unfit)
    notes = _notes(action, unfit, fit)
    if not systemdboot.source(image, action.esp, arch).endswith(".signed"):
        notes.append("the image's systemd-boot is not signed: it starts without Secure Boot only")
    return BootFilesMade(
        files=tuple(files),
        loader=f"\\EFI\\systemd\\systemd-boot{SUFFIX[arch]}.efi",
        kernels=kernels_of(image.boot),
        notes=tuple(notes),
        way="systemd-boot",
    )


def _by_unified(image: Image, action: BootFiles, arch: str, unfit: dict[str, str], fit: list[str]) -> BootFilesMade:
    chosen = newest(fit)
    files: list[FileWork] = [
        CopyFile(f"{action.esp}/{chosen}", f"{action.esp}/EFI/BOOT/BOOT{SUFFIX[arch].upper()}.EFI")
    ]
    files += _without(action.esp, unfit)
    return BootFilesMade(
        files=tuple(files),
        loader="\\" + chosen.replace("/", "\\"),
        kernels=kernels_of(image.boot),
        notes=tuple(_notes(action, unfit, fit)),
        way="a unified kernel image",
    )


def _without(esp: str, unfit: dict[str, str]) -> list[FileWork]:
    """Take away what would be offered, or even chosen, and cannot boot."""
    return [RemoveFile(f"{esp}/{path}") for path in sorted(unfit)]


def _notes(action: BootFiles, unfit: dict[str, str], fit: list[str]) -> list[str]:
    notes = [f"unified kernel image {path} is left out: {fault}" for path, fault in sorted(unfit.items())]
    if fit and action.kernel_arguments:
        notes.append(
            "a unified kernel image has its command line in its signature: it boots without the node's arguments"
        )
    return notes
