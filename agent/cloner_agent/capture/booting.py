"""Whether a clone of a tree could boot, told before it is captured: a deploy of one that cannot is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator

from cloner_agent.rooted import Rooted
from cloner_core import bootfiles

_ESP = "/boot/efi"
_FOLDERS = ("boot", "boot/grub", "boot/grub2", "boot/efi/loader/entries")
_LOADERS = "boot/efi/EFI"


def boot_lacks(tree: Rooted, architecture: str) -> tuple[str, ...]:
    """Return what a clone of `tree` would lack to boot on machines of `architecture`, as uname shows it."""
    here = [f"/{path}" for folder in _FOLDERS for path in _children(tree, folder)]
    here += [f"/{path}" for folder in _children(tree, _LOADERS) for path in _children(tree, folder)]
    here += [path for path in bootfiles.LOADERS if tree.exists(path)]
    return bootfiles.boot_lacks(here, _ESP, architecture)


def _children(tree: Rooted, folder: str) -> Iterator[str]:
    try:
        names = tree.listdir(folder)
    except OSError:
        return
    yield from (f"{folder}/{os.fsdecode(name)}" for name in names)
