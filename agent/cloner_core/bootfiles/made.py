"""What is to be done for the boot files of a clone: copies, writes and removals, in their order."""

from __future__ import annotations

import msgspec

from cloner_core.bootfiles.image import Kernel


class CopyFile(msgspec.Struct, frozen=True, tag="copy"):
    """Copy one file of the clone; parents are made."""

    source: str
    path: str


class WriteFile(msgspec.Struct, frozen=True, tag="write"):
    """Write one file of the clone, replacing what is there; parents are made."""

    path: str
    content: bytes
    mode: int = 0o644


class RemoveFile(msgspec.Struct, frozen=True, tag="remove"):
    """Remove one file of the clone if it is there."""

    path: str


FileWork = CopyFile | WriteFile | RemoveFile


class CoreImage(msgspec.Struct, frozen=True):
    """GRUB's core image for BIOS, which a program of the image makes once the files are there."""

    argv: tuple[str, ...]  # "{files}" stands for where the program finds the file with `config`
    config: bytes
    path: str  # of the core in the clone
    boot_image: str  # path of boot.img in the clone


class BootFilesMade(msgspec.Struct, frozen=True):
    """What to do, in this order, and what the firmware will then load."""

    files: tuple[FileWork, ...]
    loader: str  # "\\EFI\\debian\\shimx64.efi"; "" by BIOS
    kernels: tuple[Kernel, ...]
    notes: tuple[str, ...] = ()
    way: str = ""  # by what the clone boots, in words: "shim and GRUB"
    core: CoreImage | None = None  # None: the machine is not started by BIOS
