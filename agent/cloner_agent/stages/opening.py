"""Has the clone's initramfs open encrypted devices: the list of them is put behind what is in it.

The kernel unpacks archive after archive, and what comes later wins: so the list is right without the image's tool,
which takes minutes where a machine is emulated. That tool makes the next initramfs from /etc/crypttab, which says the
same. Must not judge drivers; `initramfs` does.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

from blake3 import blake3

from cloner_agent.attempt import Attempt
from cloner_agent.failures import StageError
from cloner_agent.rooted import Rooted
from cloner_agent.stages.encryption import means_in
from cloner_core import newc
from cloner_core.bootfiles.image import kernels_of
from cloner_core.crypttab import initramfs_list
from cloner_core.initrd import Initrd, InitrdError, read_initrd
from cloner_core.messages import Cause
from cloner_core.steps import OpenAtBoot
from cloner_core.unlocking import Means, initramfs_lacks

log = logging.getLogger(__name__)

_ALIGNED_BYTES = 512
"""An archive that is not compressed begins at a multiple of 4 (init/initramfs.c); this one can be seen in a dump."""
_PIECE_BYTES = 1 << 20
_HINT = "make the initramfs for any machine (MODULES=most, or dracut --no-hostonly) on the golden node; capture again"


def open_at_boot(attempt: Attempt, action: OpenAtBoot) -> None:
    """Append the list to each initramfs in /boot, and read it back from the newest.

    Raises StageError (NOT_BOOTABLE) when there is none, or when the newest lacks a program to open them with.
    """
    with Rooted(attempt.tools.target) as tree:
        means = means_in(tree)
        path, content = initramfs_list(action.containers, means)
        more = newc.pack(newc.with_parents([newc.file(path, content, mode=0o600)]))
        names = tuple(map(os.fsdecode, tree.listdir("boot"))) if tree.exists("boot") else ()
        files = [f"boot/{kernel.initramfs}" for kernel in kernels_of(names) if kernel.initramfs]
        if not files:
            raise StageError(
                Cause.NOT_BOOTABLE,
                "there is no initramfs in /boot, and only one there can be told which devices to open",
                hint="have the golden node boot by GRUB with kernel and initramfs in /boot",
            )
        for file in dict.fromkeys(files):
            _append(tree, file, more)
        _remember(attempt, tree, files)
        held = _read(tree, files[0], path)
        if lacking := initramfs_lacks(held, means, action.containers):
            raise StageError(Cause.NOT_BOOTABLE, f"/{files[0]} lacks {' and '.join(lacking)}", hint=_HINT)
        if held.kept.get(path) != content:
            raise StageError(Cause.READBACK, f"/{files[0]} does not hold the {path} that was put there")
    opened = ", ".join(one.name for one in action.containers)
    log.info("%s %s", ", ".join(f"/{file}" for file in dict.fromkeys(files)), f"opens {opened}: {_by(means)}")


def _by(means: Means) -> str:
    return f"{means.initramfs}, {means.sealer or 'passphrase'}"


def _append(tree: Rooted, path: str, more: bytes) -> None:
    fd = tree.open(path, os.O_RDWR)
    with os.fdopen(fd, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.write(bytes(-size % _ALIGNED_BYTES) + more)
        file.flush()
        os.fsync(file.fileno())


def _remember(attempt: Attempt, tree: Rooted, files: list[str]) -> None:
    """Have the check find the list in an initramfs that it looks for as it was made before."""
    written = attempt.record.written_boot
    for path in written.keys() & set(map(os.fsencode, files)):
        written[path] = blake3(tree.read(path, limit_bytes=1 << 30)).digest()


def _read(tree: Rooted, path: str, wanted: str) -> Initrd:
    fd = tree.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return read_initrd(_pieces(fd), lambda name: name == wanted)
    except InitrdError as error:
        raise StageError(Cause.NOT_BOOTABLE, f"/{path} cannot be read: {error.message}", hint=_HINT) from error
    finally:
        os.close(fd)


def _pieces(fd: int) -> Iterator[bytes]:
    while piece := os.read(fd, _PIECE_BYTES):
        yield piece
