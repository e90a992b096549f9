"""Places loaders and their configuration on the staged ESP, or GRUB for BIOS, as `cloner_core.bootfiles` chooses.

Must not choose anything; every path is resolved beneath the target.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable

from blake3 import blake3

from cloner_agent.attempt import Attempt
from cloner_agent.failures import StageError
from cloner_agent.rooted import Rooted
from cloner_agent.stages.bios import make_core
from cloner_agent.stages.listed import listed_files
from cloner_core.bootfiles import (
    LOADERS,
    TEXTS,
    CopyFile,
    Image,
    NotBootableError,
    RemoveFile,
    WriteFile,
    boot_files,
    is_loader_text,
)
from cloner_core.bootfiles.sources import BIOS_MODULES, INITRAMFS_MAKERS, MKIMAGES
from cloner_core.bootfiles.unified import is_unified_name, read_command_line
from cloner_core.messages import Cause
from cloner_core.steps import BootFiles

log = logging.getLogger(__name__)

_LOADER_BYTES = 64 << 20


def place(attempt: Attempt, action: BootFiles) -> None:
    """Write the boot files and remember what was written, for the check; raises StageError (NOT_BOOTABLE)."""
    with Rooted(attempt.tools.target) as tree:
        try:
            made = boot_files(look(tree, action.esp), action, attempt.facts.arch)
        except NotBootableError as error:
            raise StageError(Cause.NOT_BOOTABLE, error.message, hint=error.hint) from error
        for file in made.files:
            path = file.path.lstrip("/").encode(errors="surrogateescape")
            match file:
                case CopyFile(source=source):
                    _write(attempt, tree, path, tree.read(source, limit_bytes=_LOADER_BYTES), 0o644)
                case WriteFile(content=content, mode=mode):
                    _write(attempt, tree, path, content, mode)
                case RemoveFile():
                    tree.unlink(path, missing_ok=True)
                    attempt.record.written_boot.pop(path, None)
        if made.core:
            make_core(attempt, made.core)
            attempt.record.bios = made.core.path, made.core.boot_image
            path = os.fsencode(made.core.path.lstrip("/"))
            attempt.record.written_boot[path] = blake3(tree.read(path)).digest()
    for note in (f"boots by {made.way}{made.loader and ': '}{made.loader}", *made.notes):
        attempt.tools.reporter.note(note)
    attempt.record.loader = made.loader
    log.info("loader %s, newest kernel %s", made.loader, made.kernels[0].version if made.kernels else "unknown")


def look(tree: Rooted, esp: str) -> Image:
    """Return what the restored image has to boot with."""
    texts = {path: tree.read(path) for path in listed_files(tree, TEXTS)}
    on_esp = tuple(_files(tree, os.fsencode(esp.lstrip("/")))) if esp else ()
    return Image(
        present=frozenset(path for path in (*LOADERS, *MKIMAGES, *INITRAMFS_MAKERS) if tree.exists(path)),
        boot=tuple(map(os.fsdecode, tree.listdir("boot"))) if tree.exists("boot") else (),
        esp=on_esp,
        texts=texts,
        esp_texts={path: tree.read(f"{esp}/{path}") for path in on_esp if is_loader_text(path)},
        unified=unified_images(tree, esp, on_esp),
        bios=() if esp or not tree.exists(BIOS_MODULES) else tuple(map(os.fsdecode, tree.listdir(BIOS_MODULES))),
    )


def unified_images(tree: Rooted, esp: str, on_esp: Iterable[str]) -> dict[str, str]:
    """Return the unified kernel images among the files `on_esp`, by path, with their command lines."""
    found = {}
    for path in filter(is_unified_name, on_esp):
        fd = tree.open(f"{esp}/{path}", os.O_RDONLY)
        try:
            line = read_command_line(lambda offset, size, fd=fd: os.pread(fd, size, offset))  # type: ignore[misc]
        finally:
            os.close(fd)
        if line is not None:
            found[path] = line
    return found


def _files(tree: Rooted, folder: bytes, prefix: str = "") -> list[str]:
    """Return every file beneath `folder`, relative to it."""
    found: list[str] = []
    for name in tree.listdir(folder):
        path = folder + b"/" + name
        relative = prefix + os.fsdecode(name)
        if stat.S_ISDIR(tree.lstat(path).st_mode):
            found += _files(tree, path, f"{relative}/")
        else:
            found.append(relative)
    return found


def _write(attempt: Attempt, tree: Rooted, path: bytes, content: bytes, mode: int) -> None:
    tree.mkdir(path.rpartition(b"/")[0])
    tree.write(path, content, mode=mode)
    attempt.record.written_boot[path] = blake3(content).digest()
