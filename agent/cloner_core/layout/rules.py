"""The rules of a layout that a type cannot hold: what must go together for a clone to boot.

Must not look at a machine: what depends on disk, sector size or firmware is the planner's to refuse. What lies on what
is in `stacking`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from cloner_core.layout.containing import role_of
from cloner_core.layout.stacking import stacking_faults
from cloner_core.layout.types import (
    Content,
    DiskLayout,
    EspCopy,
    Filesystem,
    Kept,
    Layout,
    Luks,
    Nothing,
    Partition,
    Selector,
    Size,
    Swap,
    mounts_of,
)
from cloner_core.sizes import MIB, format_bytes

Fault = tuple[str, str]
"""Path of the value a rule judges, and the fault in words."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_MOUNT = re.compile(r"/|(/[A-Za-z0-9_+@%.-]+)+")
_SUBVOLUME = re.compile(r"[A-Za-z0-9_+@%.-]+(/[A-Za-z0-9_+@%.-]+)*")
_OPTIONS = re.compile(r"[A-Za-z0-9_.,=:/@+-]{1,512}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{4}-[0-9a-fA-F]{4}")
_LABEL = re.compile(r"[A-Za-z0-9 _.,:+@#=()-]*")  # no quote, no backslash: it goes into an sfdisk script
_LABEL_MAX = {"ext4": 16, "vfat": 11, "swap": 15, "xfs": 12, "btrfs": 64}
_KERNEL_OWNED = ("/proc", "/sys", "/dev", "/run")
_MBR_ENTRIES = 4


def layout_faults(layout: Layout, bad: Collection[str] = ()) -> list[str]:
    """Return every broken rule as "path: what is wrong".

    `bad` names values that are stand-ins for what could not be read; no rule judges them.
    """
    return [fault for path, fault in _faults(layout, bad) if not _is_bad(path, bad)]


def _is_bad(path: str, bad: Collection[str]) -> bool:
    return any(path == one or path.startswith((f"{one}.", f"{one}[")) for one in bad)


def _faults(layout: Layout, bad: Collection[str]) -> Iterator[Fault]:
    if not _NAME.fullmatch(layout.name):
        yield "name", f"name: '{layout.name}' is not a name (lower-case letters, digits, dot, hyphen, underscore)"
    ids = [disk.id for disk in layout.disks]
    for index, disk in enumerate(layout.disks):
        path = f"disks[{index}]"
        if not _NAME.fullmatch(disk.id):
            yield f"{path}.id", f"{path}.id: '{disk.id}' is not a name"
        elif disk.id in ids[:index]:
            yield f"{path}.id", f"{path}.id: '{disk.id}' is used twice"
        yield from _selector_faults(disk.select, f"{path}.select")
        yield from _table_faults(disk, path)
        for number, partition in enumerate(disk.partitions):
            yield from _partition_faults(partition, f"{path}.partitions[{number}]")
    for index, select in enumerate(layout.untouched):
        yield from _selector_faults(select, f"untouched[{index}]")
        if select == Selector():
            yield f"untouched[{index}]", f"untouched[{index}]: would mean every disk; say which"
    for index, group in enumerate(layout.groups):
        for number, volume in enumerate(group.volumes):
            yield from _size_faults(volume.size, f"groups[{index}].volumes[{number}].size")
    for path, content in layout.contents():
        yield from _content_faults(content, path)
    is_whole = not _hides_contents(layout, bad)
    if is_whole:
        yield from _boot_faults(layout)
    yield from _mount_faults(layout)
    yield from stacking_faults(layout, is_whole=is_whole)


def _hides_contents(layout: Layout, bad: Collection[str]) -> bool:
    """Whether something could not be read in which the root or the ESP may be, so that counting would mislead."""
    hiding = (".role", "disks", ".partitions", "arrays", "groups", ".volumes", ".content", ".subvolumes", ".mount")
    return not layout.disks or any(path.endswith(hiding) for path in bad)


def _selector_faults(select: Selector, path: str) -> Iterator[Fault]:
    if select.size_max_bytes and select.size_min_bytes > select.size_max_bytes:
        yield path, f"{path}: the least size is more than the greatest"
    if select.pick and select.pick.nth > select.pick.of:
        yield f"{path}.pick", f"{path}.pick: there is no number {select.pick.nth} of {select.pick.of}"


def _table_faults(disk: DiskLayout, path: str) -> Iterator[Fault]:
    where = f"{path}.partitions"
    if disk.table == "none":
        if disk.content is None or isinstance(disk.content, Nothing | Kept | EspCopy):
            yield f"{path}.content", f"{path}.content: a disk without a table holds a filesystem, swap, raid, lvm, luks"
        return
    kept = [(one.content.number, at) for at, one in enumerate(disk.partitions) if isinstance(one.content, Kept)]
    for number, at in kept:
        if [other for other, _ in kept].count(number) > 1:
            yield f"{where}[{at}].content.number", f"{where}[{at}].content.number: partition {number} is kept twice"
    if disk.table == "mbr":
        yield from _mbr_faults(disk, where)
        return
    for at, one in enumerate(disk.partitions):
        if one.is_logical or one.is_active:
            yield f"{where}[{at}]", f"{where}[{at}]: 'logical' and 'active' are for the table \"mbr\""


def _mbr_faults(disk: DiskLayout, where: str) -> Iterator[Fault]:
    logical = [at for at, one in enumerate(disk.partitions) if one.is_logical]
    if len(disk.partitions) - len(logical) + bool(logical) > _MBR_ENTRIES:
        yield where, f"{where}: an mbr has {_MBR_ENTRIES} entries; make the partitions from the fourth on 'logical'"
    if logical and logical != list(range(logical[0], logical[-1] + 1)):
        yield where, f"{where}: logical partitions lie in one extended partition, so they must follow one another"
    if sum(one.is_active for one in disk.partitions) > 1:
        yield where, f"{where}: more than one partition is 'active'"
    for at, one in enumerate(disk.partitions):
        if one.is_logical and isinstance(one.content, Kept):
            yield f"{where}[{at}].content", f"{where}[{at}].content: a logical partition cannot be kept"
        if one.role == "bios-boot":
            yield f"{where}[{at}].role", f"{where}[{at}].role: an mbr needs no bios-boot partition: GRUB lies before"


def _size_faults(size: Size, where: str) -> Iterator[Fault]:
    if size.min_bytes < MIB:
        yield where, f"{where}: {format_bytes(size.min_bytes)} is less than 1 MiB"
    if size.max_bytes and size.min_bytes > size.max_bytes:
        least, most = format_bytes(size.min_bytes), format_bytes(size.max_bytes)
        yield where, f"{where}: the least size {least} is more than the greatest {most}"


def _partition_faults(partition: Partition, path: str) -> Iterator[Fault]:
    content = partition.content
    if not isinstance(content, Kept):
        yield from _size_faults(partition.size, f"{path}.size")
    if not is_partition_name(partition.label):
        yield f"{path}.label", f"{path}.label: '{partition.label}' is not a partition name (36 plain characters)"
    where = f"{path}.content"
    if partition.role == "esp" and isinstance(content, Filesystem) and content.kind != "vfat":
        yield f"{where}.kind", f"{where}.kind: an esp is vfat, not {content.kind}"
    elif partition.role == "root" and isinstance(content, Filesystem) and content.kind == "vfat":
        yield f"{where}.kind", f"{where}.kind: the root cannot be vfat"
    elif partition.role in ("esp", "root") and isinstance(content, Filesystem):
        if partition.role == "root" and "/" not in mounts_of(content):
            mount = f"{where}.mount"
            yield mount, f"{mount}: role 'root' mounted at '{content.mount}'; the root and only the root is at '/'"
    elif partition.role not in _roles(content):
        yield where, f"{where}: role '{partition.role}' and this content do not go together"
    if partition.role != "root" and "/" in mounts_of(content):
        mount = f"{where}.mount"
        yield mount, f"{mount}: role '{partition.role}' mounted at '/'; the root and only the root is at '/'"


def is_partition_name(name: str) -> bool:
    """Whether `name` fits into a GPT and needs no quoting."""
    return len(name.encode("utf-16-le")) // 2 <= 36 and bool(_LABEL.fullmatch(name))


def _roles(content: Content) -> tuple[str, ...]:
    """Return which roles a partition with `content` may have."""
    match content:
        case Nothing():
            return ("bios-boot", "data")
        case Kept():
            return ("data", "swap")
        case Filesystem(kind="vfat"):
            return (role_of(content), "esp")
        case _:
            return (role_of(content),)


def _content_faults(content: Content, where: str) -> Iterator[Fault]:
    if isinstance(content, Filesystem | Swap | EspCopy):
        kind = content.kind if isinstance(content, Filesystem) else "swap" if isinstance(content, Swap) else "vfat"
        label = content.label
        if len(label) > _LABEL_MAX[kind] or not _LABEL.fullmatch(label):
            most = _LABEL_MAX[kind]
            yield f"{where}.label", f"{where}.label: '{label}' is not a label ({kind}: {most} plain characters)"
        elif kind == "vfat" and label != label.upper():
            yield f"{where}.label", f"{where}.label: '{label}' must be in upper case on vfat"
    if (
        isinstance(content, Filesystem | Swap | Luks)
        and content.source_uuid
        and not _UUID.fullmatch(content.source_uuid)
    ):
        yield f"{where}.source_uuid", f"{where}.source_uuid: '{content.source_uuid}' is not a UUID"
    if isinstance(content, Luks):
        yield from _luks_faults(content, where)
    if isinstance(content, Filesystem | Kept):
        if content.mount and not is_plain_mount(content.mount):
            yield f"{where}.mount", f"{where}.mount: '{content.mount}' is not an absolute path in plain form"
        if not _OPTIONS.fullmatch(content.options):
            yield f"{where}.options", f"{where}.options: '{content.options}' are not mount options"
    if isinstance(content, Filesystem):
        yield from _filesystem_faults(content, where)


def is_plain_mount(path: str) -> bool:
    """Whether `path` is an absolute path without anything that must be escaped or resolved."""
    return bool(_MOUNT.fullmatch(path)) and not {".", ".."} & set(path.split("/"))


def _filesystem_faults(content: Filesystem, where: str) -> Iterator[Fault]:
    if not mounts_of(content):
        yield f"{where}.mount", f"{where}.mount: nothing of the filesystem is mounted"
    if content.subvolumes and content.kind != "btrfs":
        yield f"{where}.subvolumes", f"{where}.subvolumes: {content.kind} has none; want btrfs"
    names = [one.name for one in content.subvolumes]
    for index, one in enumerate(content.subvolumes):
        path = f"{where}.subvolumes[{index}]"
        if not _SUBVOLUME.fullmatch(one.name) or {".", ".."} & set(one.name.split("/")):
            yield f"{path}.name", f"{path}.name: '{one.name}' is not a path in plain form, without a slash in front"
        elif one.name in names[:index]:
            yield f"{path}.name", f"{path}.name: '{one.name}' is used twice"
        if one.mount and not is_plain_mount(one.mount):
            yield f"{path}.mount", f"{path}.mount: '{one.mount}' is not an absolute path in plain form"
        if not _OPTIONS.fullmatch(one.options):
            yield f"{path}.options", f"{path}.options: '{one.options}' are not mount options"
        elif any(word.startswith(("subvol=", "subvolid=")) for word in one.options.split(",")):
            yield f"{path}.options", f"{path}.options: 'subvol' is set by the name"


def _luks_faults(content: Luks, where: str) -> Iterator[Fault]:
    if not _NAME.fullmatch(content.name):
        yield f"{where}.name", f"{where}.name: '{content.name}' is not a name"
    is_random = content.unlock.way == "random"
    if is_random and not isinstance(content.content, Swap):
        told = "'random' makes a new key at each boot, which is for swap alone"
        yield f"{where}.unlock", f"{where}.unlock: {told}"
    if content.unlock.pcrs and content.unlock.way != "tpm2":
        yield f"{where}.unlock.pcrs", f"{where}.unlock.pcrs: only tpm2 has registers"
    boot = [mount for mount in mounts_of(content.content) if mount == "/boot"]
    if boot:
        yield f"{where}.content.mount", f"{where}.content.mount: /boot cannot be encrypted: GRUB could not read it"


def _boot_faults(layout: Layout) -> Iterator[Fault]:
    mounts = [mount for _, content in layout.contents() for mount in mounts_of(content)]
    partitions = [one for disk in layout.disks for one in disk.partitions]
    count = max(mounts.count("/"), sum(one.role == "root" for one in partitions))
    if count != 1:
        yield "disks", f"disks: {count or 'no'} partitions of role 'root'; the clone needs exactly one root"
    esps = [one for one in partitions if one.role == "esp" and isinstance(one.content, Filesystem)]
    by_bios = any(disk.table == "mbr" for disk in layout.disks) or any(one.role == "bios-boot" for one in partitions)
    if len(esps) > 1 or not (esps or by_bios):
        told = "UEFI machines boot from exactly one" if not esps else "make the others 'esp-copy'"
        yield "disks", f"disks: {len(esps) or 'no'} partitions of role 'esp'; {told}"
    for index, disk in enumerate(layout.disks):
        copies = [at for at, one in enumerate(disk.partitions) if isinstance(one.content, EspCopy)]
        has_esp = any(one in esps for one in disk.partitions)
        for at in copies:
            path = f"disks[{index}].partitions[{at}].content"
            if not esps:
                yield path, f"{path}: there is no esp to copy"
            elif has_esp or len(copies) > 1:
                yield path, f"{path}: one esp a disk is enough"
    sealed = [path for path, content in layout.contents() if isinstance(content, Luks)]
    root = next((path for path, content in layout.contents() if "/" in mounts_of(content)), "")
    if "/boot" not in mounts and any(root.startswith(f"{path}.") for path in sealed):
        yield root, f"{root}: the root is encrypted and there is no /boot outside it, which GRUB could read"


def _mount_faults(layout: Layout) -> Iterator[Fault]:
    seen: dict[str, str] = {}
    places = list(_mounts(layout))
    for where, mount in places:
        if mount in seen:
            yield where, f"{where}: '{mount}' is mounted twice, here and at {seen[mount]}"
        seen.setdefault(mount, where.removesuffix(".content.mount"))
        if any(mount == owned or mount.startswith(f"{owned}/") for owned in _KERNEL_OWNED):
            yield where, f"{where}: '{mount}' belongs to the kernel at run time"
    esp = next(
        (
            one.content.mount
            for disk in layout.disks
            for one in disk.partitions
            if one.role == "esp" and isinstance(one.content, Filesystem)
        ),
        "",
    )
    for where, mount in places:
        if esp and mount.startswith(f"{esp}/"):
            yield where, f"{where}: '{mount}' would lie inside the esp"
    for index, one in enumerate(layout.swapfiles):
        path = f"swapfiles[{index}]"
        if not is_plain_mount(one.path) or one.path == "/" or one.path in seen:
            yield f"{path}.path", f"{path}.path: '{one.path}' is not the path of a file in plain form"
        elif esp and one.path.startswith(f"{esp}/"):
            yield f"{path}.path", f"{path}.path: '{one.path}' would lie inside the esp"
        if one.size_bytes < MIB:
            yield f"{path}.size", f"{path}.size: {format_bytes(one.size_bytes)} is less than 1 MiB"


def _mounts(layout: Layout) -> Iterator[tuple[str, str]]:
    """Give (path of the field, mount point) of everything that is mounted."""
    for path, content in layout.contents():
        if isinstance(content, Filesystem | Kept) and content.mount:
            yield f"{path}.mount", content.mount
        if isinstance(content, Filesystem):
            for index, one in enumerate(content.subvolumes):
                if one.mount:
                    yield f"{path}.subvolumes[{index}].mount", one.mount
