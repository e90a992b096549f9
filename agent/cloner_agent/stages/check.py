"""The last look before the commit: devices carry the planned names, files of ours are as written, a kernel can start.

Reads only; everything comes from the disk, not from what the earlier stages remember to have done.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from blake3 import blake3

from cloner_agent.arrays import member_faults
from cloner_agent.attempt import Attempt
from cloner_agent.failures import StageError, is_of_disk
from cloner_agent.host import Runner
from cloner_agent.rooted import Rooted
from cloner_agent.stages.bootfiles import unified_images
from cloner_agent.stages.disks import sync_mounts
from cloner_agent.stages.listed import listed_files
from cloner_core.bootfiles.unified import labels_named
from cloner_core.describing import describe_disk
from cloner_core.fstab import entries
from cloner_core.messages import Cause
from cloner_core.plan import Plan
from cloner_core.references import ENVIRONMENTS, root_faults
from cloner_core.steps import Check

_GRUB_CONFIGS = ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/boot/efi/EFI/*/grub.cfg")
_BLS = "/boot/loader/entries"
_ESP_ENTRIES = "/loader/entries/*.conf"
_SYSTEMD_BOOT = "\\efi\\systemd\\"
_BOOT_LINE = re.compile(rb"^\s*(linux|initrd)(?:efi|16)?\s+(\S.*)$")
_ROOT_DEVICE = re.compile(rb"^\([^)]*\)|^\$\{?root\}?")
_BZIMAGE_MAGIC = (0x202, b"HdrS")  # Documentation/arch/x86/boot.rst
_EFI_MAGIC = b"MZ"
_KERNEL_HEAD_BYTES = 0x206


def check(attempt: Attempt, action: Check) -> None:
    """Raise StageError naming every fault at once: IDENTITY when only identity is wrong, else NOT_BOOTABLE.

    A disk that fails is the first fault, and the only one: DISK_IO.
    """
    sync_mounts(attempt)
    attempt.tools.machine.drop_caches()
    failing = list(_array_faults(attempt))
    if failing:
        raise StageError(Cause.DISK_IO, "; ".join(failing))
    with Rooted(attempt.tools.target) as tree:
        identity = list(_changed(tree, attempt.record.written_identity))
        faults = [
            *_device_faults(attempt),
            *_changed(tree, attempt.record.written_boot),
            *_fstab_faults(tree, attempt.plan),
            *_root_faults(tree, attempt.plan),
            *_unified_faults(tree, attempt.plan),
            *_kernel_faults(tree, attempt),
        ]
    if faults:
        raise StageError(Cause.NOT_BOOTABLE, "; ".join((*faults, *identity)))
    if identity:
        raise StageError(Cause.IDENTITY, "; ".join(identity))


def _changed(tree: Rooted, written: dict[bytes, bytes]) -> Iterator[str]:
    for path, digest in written.items():
        try:
            content = tree.read(path, limit_bytes=1 << 30)
        except OSError as error:
            told = f"/{os.fsdecode(path)} cannot be read: {error.strerror}"
            if is_of_disk(error):  # which is then no fault of what was written
                raise StageError(Cause.DISK_IO, told) from error
            yield told
            continue
        if blake3(content).digest() != digest:
            yield f"/{os.fsdecode(path)} is not as it was written"
        elif path.lower().endswith(b".efi") and not content.startswith(_EFI_MAGIC):
            yield f"/{os.fsdecode(path)} is no EFI program"


def _array_faults(attempt: Attempt) -> Iterator[str]:
    """A read takes one member of a mirror, and no parity: of the others md alone knows."""
    plan = attempt.plan
    disks = {partition.device: planned.disk for planned in plan.disks for partition in planned.partitions}
    disks |= {planned.disk.path: planned.disk for planned in plan.disks}
    for array in plan.arrays:
        for device, fault in member_faults(array, root=attempt.tools.machine_root):
            yield f"{device}, member of array {array.id}, {fault}: it lies on {describe_disk(disks[device])}"


def _device_faults(attempt: Attempt) -> Iterator[str]:
    """Compare superblocks and partition tables, read anew, with the plan."""
    plan = attempt.plan
    seen = [signature for disk in attempt.tools.probe().disks for signature in disk.signatures]
    for partition in plan.partitions:
        guids = {signature.part_uuid for signature in seen if signature.device == partition.device} - {""}
        if guids != {partition.part_uuid} and partition.role != "extended":
            yield f"{partition.device} has GUID {', '.join(guids) or 'none'}, want {partition.part_uuid}"
    disks = {partition.device for partition in plan.partitions} | {disk.disk.path for disk in plan.disks}
    for volume in plan.volumes:
        if volume.device in disks:
            here = [signature for signature in seen if signature.device == volume.device]
            found = [(signature.kind, signature.uuid) for signature in here if signature.uuid]
        else:
            found = [_superblock(attempt.tools.run, volume.device)]
        if (volume.filesystem, volume.uuid.lower()) not in {(kind, uuid.lower()) for kind, uuid in found}:
            told = ", ".join(f"{kind} {uuid}" for kind, uuid in found) or "nothing"
            yield f"{volume.device} shows {told}, want {volume.filesystem} {volume.uuid}"


def _superblock(run: Runner, device: str) -> tuple[str, str]:
    """Return kind and UUID of what is on an array, a logical volume or a mapping; status 2 says nothing is known."""
    said = run(("blkid", "--probe", "--output", "export", device), accept=(0, 2)).stdout
    told = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    return told.get("TYPE", "nothing"), told.get("UUID", "")


def _fstab_faults(tree: Rooted, plan: Plan) -> Iterator[str]:
    """Each mount point of the layout is in fstab, once, with the UUID that was made; so is each swap."""
    try:
        found = entries(tree.read(b"etc/fstab"))
    except OSError as error:
        if is_of_disk(error):
            raise
        yield f"/etc/fstab: {error.strerror}"
        return
    for wanted in plan.entries:
        source = f"UUID={wanted.uuid}" if wanted.uuid else wanted.device
        is_swap = wanted.filesystem == "swap"
        here = [one for one in found if (one.kind == "swap" if is_swap else one.mount == wanted.mount)]
        if source.lower() not in (one.device.replace('"', "").lower() for one in here):
            told = [one.device for one in here] or "nothing"
            yield f"/etc/fstab has {told} for {wanted.mount or 'swap'}, want {source}"
        subvolume = f"subvol={wanted.subvolume}"
        if wanted.subvolume and not any(subvolume in one.options.replace("=/", "=").split(",") for one in here):
            yield f"/etc/fstab mounts {wanted.mount} without {subvolume}"


def _root_faults(tree: Rooted, plan: Plan) -> Iterator[str]:
    label = next(volume.label for volume in plan.volumes if volume.device == plan.root.device)
    esp = (f"{plan.esp.mount}{_ESP_ENTRIES}",) if plan.esp else ()
    lines = {path: tree.read(path) for path in listed_files(tree, (*_GRUB_CONFIGS, f"{_BLS}/*.conf", *esp))}
    # What GRUB's variables say counts where an entry asks for it: an upgrade leaves them behind.
    if any(path.startswith(_BLS) and b"kernelopts" in text for path, text in lines.items()):
        lines |= {path: tree.read(path) for path in listed_files(tree, ENVIRONMENTS)}
    for path, text in lines.items():
        yield from root_faults(path, text, plan.root, label)


def _unified_faults(tree: Rooted, plan: Plan) -> Iterator[str]:
    """A unified kernel image that asks for its root by a label must ask for one that the clone has."""
    label = next(volume.label for volume in plan.volumes if volume.device == plan.root.device)
    name = next((partition.name for partition in plan.partitions if partition.device == plan.root.device), "")
    for path, line in _unified(tree, plan).items():
        wanted, wanted_name = labels_named(line)
        if wanted and wanted != label:
            yield f"{path} wants a root with label '{wanted}', and the clone's has '{label}'"
        if wanted_name and wanted_name != name:
            yield f"{path} wants a root in a partition named '{wanted_name}', and the clone's is '{name}'"


def _unified(tree: Rooted, plan: Plan) -> dict[str, str]:
    if not plan.esp:
        return {}
    esp = plan.esp.mount
    names = [path.removeprefix(f"{esp}/") for path in listed_files(tree, (f"{esp}/*/*/*",))]
    return {f"{esp}/{name}": line for name, line in unified_images(tree, esp, names).items()}


def _kernel_faults(tree: Rooted, attempt: Attempt) -> Iterator[str]:
    """At least one boot entry names a kernel and an initramfs that exist; those before it that do not are noted."""
    esp = attempt.plan.esp.mount if attempt.plan.esp else ""
    loader = attempt.record.loader.lower()
    if loader.startswith("\\efi\\linux\\") or (loader.startswith(_SYSTEMD_BOOT) and _unified(tree, attempt.plan)):
        return  # kernel, initramfs and command line in one file, the bytes of which were read back
    patterns: tuple[str, ...]
    places: tuple[bytes, ...]
    patterns, places = (*_GRUB_CONFIGS, f"{_BLS}/*.conf"), (b"", b"boot/")
    if loader.startswith(_SYSTEMD_BOOT):  # which sees nothing but the ESP
        patterns, places = (f"{esp}{_ESP_ENTRIES}",), (esp.strip("/").encode() + b"/",)
    missing: list[str] = []
    top = b"" if loader.startswith(_SYSTEMD_BOOT) else os.fsencode(attempt.plan.boot.subvolume)
    for kernel, initrds in _boot_entries(tree, patterns):
        lost = [name for name in (kernel, *initrds) if _find(tree, name, places, top) is None]
        if lost:
            missing += [os.fsdecode(name) for name in lost]
            continue
        place = _find(tree, kernel, places, top)
        if place is not None and _is_kernel(tree, place):
            if missing:
                told = ", ".join(missing)
                attempt.tools.reporter.note(f"boot entries before the first whole one name what is not there: {told}")
            return
        missing.append(f"{os.fsdecode(kernel)} (not a kernel)")
    yield f"no boot entry has its kernel and initramfs; missing: {', '.join(missing) or 'there is no entry at all'}"


def _boot_entries(tree: Rooted, patterns: tuple[str, ...]) -> Iterator[tuple[bytes, list[bytes]]]:
    """Give (kernel, initramfs files) of each entry of GRUB and of the Boot Loader Specification, in order."""
    for text in [tree.read(path) for path in listed_files(tree, patterns)]:
        kernel, initrds = b"", list[bytes]()
        for line in text.splitlines():
            match = _BOOT_LINE.match(line)
            if match is None:
                continue
            if match[1] == b"linux":
                if kernel:
                    yield kernel, initrds
                kernel, initrds = match[2].split()[0], []
            elif kernel:
                # a variable ($tuned_initrd) is empty as a rule, and cannot be known
                words = [_ROOT_DEVICE.sub(b"", word) for word in match[2].split()]
                initrds += [word for word in words if word.startswith(b"/")]
        if kernel:
            yield kernel, initrds


def _find(tree: Rooted, name: bytes, places: tuple[bytes, ...], top: bytes) -> bytes | None:
    """Return where a boot loader's path lies in the tree: it is relative to /boot when that is a partition.

    GRUB sees a filesystem from its top, the subvolume `top` in it, so that is the first part of the path.
    """
    bare = _ROOT_DEVICE.sub(b"", name).strip(b"\"'").lstrip(b"/")
    bare = bare.removeprefix(top + b"/") if top else bare
    for candidate in (place + bare for place in places):
        if bare and tree.exists(candidate):
            return candidate
    return None


def _is_kernel(tree: Rooted, path: bytes) -> bool:
    fd = tree.open(path, os.O_RDONLY)
    try:
        head = os.pread(fd, _KERNEL_HEAD_BYTES, 0)
    finally:
        os.close(fd)
    offset, magic = _BZIMAGE_MAGIC
    return head.startswith(_EFI_MAGIC) or head[offset : offset + len(magic)] == magic
