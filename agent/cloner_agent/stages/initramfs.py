"""The initramfs of the clone: it must have what drives this machine and this layout, or it is made anew.

What is needed, and by which command it is made, is decided by `cloner_core.bootneeds`; the command is one of the
image's and runs confined.
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from blake3 import blake3

from cloner_agent.attempt import Attempt
from cloner_agent.confined import Program
from cloner_agent.devicedrivers import bound_devices
from cloner_agent.failures import StageError, is_of_disk
from cloner_agent.rooted import Rooted
from cloner_agent.stages.bootfiles import look
from cloner_core.bootfiles.image import Image, kernels_of, on_esp
from cloner_core.bootfiles.systemdboot import entries, kernel_of
from cloner_core.bootneeds import (
    INITRAMFS_HINT,
    NO_TOOL,
    REBUILDERS,
    Need,
    Rebuild,
    device_needs,
    embedded,
    initramfs_text,
    is_configuration,
    lacking_words,
    lacks,
    layout_needs,
    rebuild_of,
)
from cloner_core.initrd import Initrd, InitrdError, read_initrd
from cloner_core.kernelmodules import ModuleTable, drivers_of
from cloner_core.messages import Cause
from cloner_core.steps import CheckInitramfs

log = logging.getLogger(__name__)

_PIECE_BYTES = 1 << 20
_TABLE_BYTES = 64 << 20
_REBUILD_S = 1800.0  # Debian's takes 350 s in an emulated machine
_HEAD_BYTES = 16 << 10


@dataclass(frozen=True, slots=True)
class _Kernel:
    """The kernel the clone boots by default, and its initramfs."""

    release: str  # as uname -r says
    parts: tuple[str, ...]  # paths in the clone, without the leading slash; the loader puts them together
    table: ModuleTable
    needs: tuple[Need, ...]

    @property
    def initramfs(self) -> str:
        """The part that is made for the kernel; microcode comes before it."""
        return self.parts[-1]


def check_initramfs(attempt: Attempt, action: CheckInitramfs) -> None:
    """Compare, rebuild when something is missing, compare again; raises StageError (NOT_BOOTABLE) when it stays so."""
    reporter = attempt.tools.reporter
    with Rooted(attempt.tools.target) as tree:
        kernel = _kernel(attempt, tree)
        if kernel is None:
            return
        try:
            initrd = _read(tree, kernel.parts)
        except InitrdError as error:
            reporter.note(f"/{kernel.initramfs} was not looked into: {error.message}")
            return
        lacking = lacks(kernel.needs, initrd, kernel.release, kernel.table)
        stale = embedded(initrd, attempt.record.replaced)
        if not lacking and not stale:
            log.info("/%s has all that this machine and its layout need", kernel.initramfs)
            return
        why = "; ".join((*lacking_words(lacking), *(f"its {path} names filesystems that are gone" for path in stale)))
        present = {path for path in REBUILDERS if tree.exists(path)}
        made = rebuild_of(present, kernel.release, f"/{kernel.initramfs}")
        if made is None:
            _settle(attempt, kernel, lacking, f"{why}, {NO_TOOL}")
            return
        log.info("/%s is made anew: %s", kernel.initramfs, why)
        trouble = _rebuild(attempt, tree, made)
        still = lacks(kernel.needs, _read_again(tree, kernel), kernel.release, kernel.table)
        _remember(attempt, tree, kernel.initramfs)
    if trouble or still:
        told = (*lacking_words(still), *((trouble,) if trouble else ()))
        _settle(attempt, kernel, still or lacking, "; ".join((*told, "it was made anew and that did not help")))
        return
    reporter.note(f"the initramfs of kernel {kernel.release} was made anew by {made.argv[0].rsplit('/', 1)[-1]}: {why}")


def _settle(attempt: Attempt, kernel: _Kernel, lacking: tuple[tuple[Need, str], ...], why: str) -> None:
    """End the deploy when the clone could not boot like this, else note it."""
    message = initramfs_text(kernel.release, kernel.initramfs, why)
    if any(need.is_needed for need, _ in lacking):
        raise StageError(Cause.NOT_BOOTABLE, message, hint=INITRAMFS_HINT)
    attempt.tools.reporter.note(message)


def _kernel(attempt: Attempt, tree: Rooted) -> _Kernel | None:
    """Return the newest kernel and what it needs; None when there is nothing to compare."""
    found = _on_esp(attempt, tree) or _in_boot(tree)
    if found is None:
        log.info("no kernel with an initramfs of its own: nothing to look into")
        return None
    version, kernel, parts = found
    release = _release(tree, version, kernel)
    modules = f"lib/modules/{release}"
    if not release or not tree.exists(f"{modules}/modules.dep"):
        log.info("the image has no modules of kernel %s: nothing to look into", release or version)
        return None
    table = ModuleTable.parse(*(_text(tree, f"{modules}/modules.{name}") for name in ("dep", "softdep", "builtin")))
    chosen = [planned.disk for planned in attempt.plan.disks]
    devices = bound_devices(chosen, attempt.facts.nics, attempt.tools.machine_root)
    texts = (_text(tree, f"{modules}/modules.alias"), _text(tree, f"{modules}/modules.builtin.modinfo"))
    drivers = drivers_of((device.modalias for device in devices if device.modalias), *texts)
    needs = (*device_needs(devices, table, drivers), *layout_needs(attempt.plan))
    return _Kernel(release, parts, table, needs)


def _in_boot(tree: Rooted) -> tuple[str, str, tuple[str, ...]] | None:
    """Return version, kernel and initramfs of the newest kernel in /boot; None when there is none."""
    names = tuple(map(os.fsdecode, tree.listdir("boot"))) if tree.exists("boot") else ()
    newest = next((kernel for kernel in kernels_of(names) if kernel.initramfs), None)
    return None if newest is None else (newest.version, f"boot/{newest.kernel}", (f"boot/{newest.initramfs}",))


def _on_esp(attempt: Attempt, tree: Rooted) -> tuple[str, str, tuple[str, ...]] | None:
    """Return the same of systemd-boot's newest entry; None where another loader boots, or it has no initramfs."""
    if attempt.plan.esp is None or "systemd-boot" not in attempt.record.loader:
        return None
    esp = attempt.plan.esp.mount.lstrip("/")
    image = look(tree, f"/{esp}")
    for entry in entries(image, attempt.facts.arch).values():
        kernel, parts = kernel_of(entry)
        if kernel and parts:
            kernel, parts = f"{esp}/{_spelt(image, kernel)}", tuple(f"{esp}/{_spelt(image, path)}" for path in parts)
            return kernel.rsplit("/", 2)[-2], kernel, parts
    return None


def _spelt(image: Image, path: str) -> str:
    """Return a path of an entry as the ESP spells it."""
    return on_esp(image, path.lstrip("/\\").replace("\\", "/"))


def _release(tree: Rooted, version: str, kernel: str) -> str:
    """Return what uname -r will say: the version in the kernel's name, or where that is a word, what is inside."""
    if tree.exists(f"lib/modules/{version}"):
        return version
    fd = tree.open(kernel, os.O_RDONLY)
    try:
        head = os.pread(fd, _HEAD_BYTES, 0)
        # Documentation/arch/x86/boot.rst: "HdrS" at 0x202, kernel_version at 0x20e is an offset from 0x200.
        if head[0x202:0x206] != b"HdrS":
            return ""
        text = os.pread(fd, 128, 0x200 + struct.unpack_from("<H", head, 0x20E)[0])
    finally:
        os.close(fd)
    words = text.partition(b"\0")[0].decode(errors="replace").split()
    return words[0] if words and "/" not in words[0] else ""


def _text(tree: Rooted, path: str) -> str:
    return tree.read(path, limit_bytes=_TABLE_BYTES).decode(errors="replace") if tree.exists(path) else ""


def _read(tree: Rooted, parts: Iterable[str]) -> Initrd:
    return read_initrd(chain.from_iterable(_pieces(tree, path) for path in parts), is_configuration)


def _pieces(tree: Rooted, path: str) -> Iterator[bytes]:
    fd = tree.open(path, os.O_RDONLY)
    try:
        while piece := os.read(fd, _PIECE_BYTES):
            yield piece
    finally:
        os.close(fd)


def _read_again(tree: Rooted, kernel: _Kernel) -> Initrd:
    try:
        return _read(tree, kernel.parts)
    except (InitrdError, OSError) as error:
        if isinstance(error, OSError) and is_of_disk(error):
            raise
        raise StageError(
            Cause.NOT_BOOTABLE, f"/{kernel.initramfs} was made anew and cannot be read now: {error}"
        ) from error


def _remember(attempt: Attempt, tree: Rooted, path: str) -> None:
    """Have the check find on the disk what is there now; what was looked into may have come from memory."""
    attempt.record.written_boot[os.fsencode(path)] = blake3(tree.read(path, limit_bytes=1 << 30)).digest()


def _rebuild(attempt: Attempt, tree: Rooted, made: Rebuild) -> str:
    """Run the image's tool; returns what went wrong, "" when nothing did."""
    if made.drop_in:
        tree.mkdir(os.path.dirname(made.drop_in))
        tree.write(made.drop_in, made.content)
    try:
        program = Program(argv=made.argv, timeout_s=_REBUILD_S, environment=dict(made.environment))
        ended = attempt.tools.confine(attempt.tools.target, program, watch=attempt.tools.reporter.check)
    finally:
        if made.drop_in:
            tree.unlink(made.drop_in, missing_ok=True)
    last = next((line for line in reversed(ended.last_lines) if line), "")
    return "" if ended.is_good else f"'{' '.join(made.argv)}' {ended.tell()}" + (f": {last}" if last else "")
