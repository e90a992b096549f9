"""Mends from the running system how the firmware boots it: the boot entry of each ESP, their order, the fallback path.

The rules are those of a deploy (`cloner_core.nvram`). Must not touch an ESP of another system, nor anything else of a
disk.
"""

from __future__ import annotations

import os
import platform
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from cloner_agent.blockdevices import all_holders_of, partitions_of
from cloner_agent.bootentries import apply_plan
from cloner_agent.efivars import EfiVars
from cloner_agent.host import Runner
from cloner_agent.rooted import Rooted
from cloner_agent.stages.commit import tree_digests
from cloner_core.bootfiles.image import shell_assignments
from cloner_core.efi import HardDrive
from cloner_core.efiboot import ESP_TYPE, Copy, copies_of, description_of, fallback_of, loader_of
from cloner_core.errors import ClonerError, RefusedError
from cloner_core.facts import Disk, DiskPartition
from cloner_core.nvram import after_plan, describe, nvram_faults, nvram_plan, read_nvram

_MOUNT_POINTS = ("/boot/efi", "/efi", "/boot")
_OCTAL = re.compile(r"\\([0-7]{3})")


class EfiBootFixed(msgspec.Struct, frozen=True):
    """What was done, or would be."""

    esps: tuple[str, ...]  # devices, that of the running system first
    loader: str
    before: tuple[str, ...]  # the firmware's boot entries, in words
    after: tuple[str, ...]
    copied: tuple[str, ...]  # files, "/dev/vda1: EFI/BOOT/BOOTX64.EFI"
    notes: tuple[str, ...] = ()
    dry_run: bool = False


class _Esp(msgspec.Struct, frozen=True):
    device: str
    drive: HardDrive
    disk: str


@dataclass(frozen=True, slots=True)
class System:
    """The running system, as seams."""

    run: Runner
    disks: tuple[Disk, ...]
    efivars: EfiVars
    root: str = "/"  # stands before /proc, /sys and /etc
    arch: str = platform.machine()
    open_esp: Callable[[str], AbstractContextManager[str]] | None = None  # None: mount it somewhere for the time


def fix_efi_boot(
    system: System, *, boot_order: Literal["network-first", "local-first"], is_dry: bool = False
) -> EfiBootFixed:
    """Have the firmware boot the running system from each ESP it has, as a deploy would have left it.

    Raises RefusedError where there is nothing to mend: no firmware variables, no ESP; NotBootableError where the ESP
    has no loader; ClonerError when the firmware did not keep what was written.
    """
    if not system.efivars.is_there:
        raise RefusedError(
            "this machine shows no firmware variables",
            hint="it was started by BIOS, or: mount -t efivarfs efivarfs /sys/firmware/efi/efivars",
        )
    found = _esps(system)
    if not found:
        raise RefusedError(
            "no EFI system partition is on the disks that this system runs from",
            hint="a GPT partition of type EFI System, and sfdisk to read the table, are needed",
        )
    with ExitStack() as stack:
        open_esp = system.open_esp or (lambda device: _mounted(system, device, is_dry=is_dry))
        places = {esp.device: stack.enter_context(open_esp(esp.device)) for esp in found}
        trees = {device: stack.enter_context(Rooted(place)) for device, place in places.items()}
        digests = {device: _digests(tree) for device, tree in trees.items()}
        before = read_nvram(system.efivars.all())
        first, have = found[0], digests[found[0].device]
        release = _os_release(system)
        guids = {esp.drive.guid for esp in found}
        loader = loader_of(have, before, guids, system.arch, release.get("ID", "linux"))
        # an ESP without this loader belongs to somebody else
        ours = [esp for esp in found if esp is first or loader.lower() in map(str.lower, digests[esp.device])]
        notes = [
            f"{esp.device} lacks {loader} and is left alone: it may be another system's, or a copy that was never made"
            for esp in found
            if esp not in ours
        ]
        fallback = fallback_of(loader, have, system.arch)
        copies = copies_of(fallback, [(esp.device, digests[esp.device]) for esp in ours])
        plan = nvram_plan(
            before,
            [esp.drive for esp in ours],
            "\\" + loader.replace("/", "\\"),
            description=description_of(before, {esp.drive.guid for esp in ours}, release.get("NAME", "Linux")),
            policy=boot_order,
            destroyed=(),
            live={part.part_uuid for disk in system.disks for part in disk.partitions},
            keeps_place=True,
        )
        after = after_plan(before, plan)
        if not is_dry:
            for copy in copies:
                _copy(trees[first.device], trees[copy.device], copy)
            if not apply_plan(system.efivars, plan):
                notes.append("NVRAM is full even without crash dumps: the firmware boots by the fallback path")
            else:
                after = read_nvram(system.efivars.all())
                if faults := nvram_faults(after, plan):
                    raise ClonerError(
                        f"the firmware did not keep what was written: {'; '.join(faults)}",
                        hint="delete stale boot entries in its setup, or update it",
                    )
    return EfiBootFixed(
        esps=tuple(esp.device for esp in ours),
        loader=loader,
        before=describe(before),
        after=describe(after),
        copied=tuple(f"{copy.device}: {copy.path}" for copy in copies),
        notes=tuple(notes),
        dry_run=is_dry,
    )


def _esps(system: System) -> list[_Esp]:
    """Return the ESPs of the disks below /, and the mounted one wherever it is; the mounted one first."""
    mounts = _mounts(system.root)
    mounted = {device for device, where in mounts if where in _MOUNT_POINTS}
    carriers = _below_root(system, mounts)
    found = [
        _Esp(_path(disk, part), _drive(disk, part), disk.path)
        for disk in system.disks
        for part in disk.partitions
        if part.type == ESP_TYPE and (disk.path in carriers or _path(disk, part) in mounted)
    ]
    found.sort(key=lambda esp: esp.device not in mounted)
    first_of: dict[str, _Esp] = {}
    for esp in found:
        first_of.setdefault(esp.disk, esp)  # one of each disk, the mounted one first
    return list(first_of.values())


def _below_root(system: System, mounts: list[tuple[str, str]]) -> set[str]:
    """Return the paths of the disks that / lies on, through whatever is built on them."""
    base = Path(system.root)
    root = next((device for device, where in reversed(mounts) if where == "/"), "")
    names = {root.removeprefix("/dev/"), Path(os.path.realpath(root)).name}
    for path in base.glob("sys/class/block/*/dm/name"):
        if root == f"/dev/mapper/{path.read_text().strip()}":
            names.add(path.parent.parent.name)
    for devices in base.glob("sys/fs/btrfs/*/devices"):
        members = {path.name for path in devices.iterdir()}
        names |= members if members & names else set()
    carriers = set()
    for disk in system.disks:
        block = base / "sys/block" / disk.path.removeprefix("/dev/")
        members_of = [block.name, *(part.name for part in partitions_of(block))]
        if names & {*members_of, *all_holders_of(base, members_of)}:
            carriers.add(disk.path)
    return carriers


def _mounts(root: str) -> list[tuple[str, str]]:
    """Return (source, mount point) of everything mounted, in its order: proc_pid_mountinfo(5)."""
    found = []
    for line in (Path(root) / "proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        left, _, right = line.partition(" - ")
        where, source = left.split()[4], right.split()[1:2]
        if source:
            found.append((source[0], _OCTAL.sub(lambda match: chr(int(match[1], 8)), where)))
    return found


@contextmanager
def _mounted(system: System, device: str, *, is_dry: bool) -> Iterator[str]:
    """Give where `device` is mounted; mounted for the time where it is not."""
    for source, where in _mounts(system.root):
        if source == device and where in _MOUNT_POINTS:
            yield where
            return
    with tempfile.TemporaryDirectory(prefix="cloner-esp-") as place:
        options = "ro,umask=0077" if is_dry else "umask=0077"
        system.run(("mount", "-t", "vfat", "-o", options, device, place))
        try:
            yield place
        finally:
            system.run(("umount", place))


def _digests(tree: Rooted) -> dict[str, bytes]:
    """Return the digest of every file of an ESP by its path there."""
    return {os.fsdecode(path): digest for path, digest in tree_digests(tree, b"").items()}


def _copy(source: Rooted, target: Rooted, copy: Copy) -> None:
    target.mkdir(os.fsencode(copy.path.rpartition("/")[0]))
    target.write(copy.path, source.read(copy.source, limit_bytes=1 << 30), mode=0o600)


def _drive(disk: Disk, part: DiskPartition) -> HardDrive:
    return HardDrive(
        part.number, part.start_bytes // disk.sector_bytes, part.size_bytes // disk.sector_bytes, part.part_uuid
    )


def _path(disk: Disk, part: DiskPartition) -> str:
    return f"{disk.path}{'p' if disk.path[-1].isdigit() else ''}{part.number}"


def _os_release(system: System) -> dict[str, str]:
    for path in ("etc/os-release", "usr/lib/os-release"):
        if (file := Path(system.root) / path).is_file():
            return shell_assignments(file.read_bytes())
    return {}
