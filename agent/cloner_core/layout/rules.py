"""The rules of a layout that a type cannot hold: what must go together for a clone to boot.

Must not look at a machine: what depends on disk, sector size or firmware is the planner's to refuse.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from cloner_core.layout.types import DiskLayout, Filesystem, Layout, Partition, Swap
from cloner_core.sizes import MIB, format_bytes

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_MOUNT = re.compile(r"/|(/[A-Za-z0-9_+@%.-]+)+")
_OPTIONS = re.compile(r"[A-Za-z0-9_.,=:/@+-]{1,512}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{4}-[0-9a-fA-F]{4}")
_LABEL = re.compile(r"[A-Za-z0-9 _.,:+@#=()-]*")  # no quote, no backslash: it goes into an sfdisk script
_LABEL_MAX = {"ext4": 16, "vfat": 11, "swap": 15}
_KERNEL_OWNED = ("/proc", "/sys", "/dev", "/run")


def layout_faults(layout: Layout, bad: Collection[str] = ()) -> list[str]:
    """Return every broken rule as "path: what is wrong".

    `bad` names values that are stand-ins for what could not be read; no rule judges them.
    """
    return [fault for path, fault in _faults(layout, bad) if not _is_bad(path, bad)]


def _is_bad(path: str, bad: Collection[str]) -> bool:
    return any(path == one or path.startswith((f"{one}.", f"{one}[")) for one in bad)


def _faults(layout: Layout, bad: Collection[str]) -> Iterator[tuple[str, str]]:
    if not _NAME.fullmatch(layout.name):
        yield "name", f"name: '{layout.name}' is not a name (lower-case letters, digits, dot, hyphen, underscore)"
    ids = [disk.id for disk in layout.disks]
    for index, disk in enumerate(layout.disks):
        path = f"disks[{index}]"
        if not _NAME.fullmatch(disk.id):
            yield f"{path}.id", f"{path}.id: '{disk.id}' is not a name"
        elif disk.id in ids[:index]:
            yield f"{path}.id", f"{path}.id: '{disk.id}' is used twice"
        select = disk.select
        if select.size_max_bytes and select.size_min_bytes > select.size_max_bytes:
            yield f"{path}.select", f"{path}.select: the least size is more than the greatest"
        for number, partition in enumerate(disk.partitions):
            yield from _partition_faults(partition, f"{path}.partitions[{number}]")
    if not _hides_partitions(layout.disks, bad):
        yield from _role_faults(layout)
    yield from _mount_faults(layout)


def _hides_partitions(disks: tuple[DiskLayout, ...], bad: Collection[str]) -> bool:
    """Whether a role or a whole list of partitions could not be read, so that counting roles would mislead."""
    return not disks or any(path.endswith((".role", "disks", ".partitions")) for path in bad)


def _partition_faults(partition: Partition, path: str) -> Iterator[tuple[str, str]]:
    size, content = partition.size, partition.content
    where = f"{path}.size"
    if size.min_bytes < MIB:
        yield where, f"{where}: {format_bytes(size.min_bytes)} is less than 1 MiB"
    if size.max_bytes and size.min_bytes > size.max_bytes:
        least, most = format_bytes(size.min_bytes), format_bytes(size.max_bytes)
        yield where, f"{where}: the least size {least} is more than the greatest {most}"
    if len(partition.label.encode("utf-16-le")) // 2 > 36 or not _LABEL.fullmatch(partition.label):
        yield f"{path}.label", f"{path}.label: '{partition.label}' is not a partition name (36 plain characters)"
    where = f"{path}.content"
    if (partition.role == "swap") != isinstance(content, Swap):
        yield where, f"{where}: role '{partition.role}' and this content do not go together"
    elif partition.role == "esp" and isinstance(content, Filesystem) and content.kind != "vfat":
        yield f"{where}.kind", f"{where}.kind: an esp is vfat, not {content.kind}"
    elif partition.role == "root" and isinstance(content, Filesystem) and content.kind == "vfat":
        yield f"{where}.kind", f"{where}.kind: the root cannot be vfat"
    yield from _content_faults(content, where)


def _content_faults(content: Filesystem | Swap, where: str) -> Iterator[tuple[str, str]]:
    kind = content.kind if isinstance(content, Filesystem) else "swap"
    if len(content.label) > _LABEL_MAX[kind] or not _LABEL.fullmatch(content.label):
        most = _LABEL_MAX[kind]
        yield f"{where}.label", f"{where}.label: '{content.label}' is not a label ({kind}: {most} plain characters)"
    elif kind == "vfat" and content.label != content.label.upper():
        yield f"{where}.label", f"{where}.label: '{content.label}' must be in upper case on vfat"
    if content.source_uuid and not _UUID.fullmatch(content.source_uuid):
        yield f"{where}.source_uuid", f"{where}.source_uuid: '{content.source_uuid}' is not a UUID"
    if isinstance(content, Filesystem):
        if not _MOUNT.fullmatch(content.mount) or {".", ".."} & set(content.mount.split("/")):
            yield f"{where}.mount", f"{where}.mount: '{content.mount}' is not an absolute path in plain form"
        if not _OPTIONS.fullmatch(content.options):
            yield f"{where}.options", f"{where}.options: '{content.options}' are not mount options"


def _role_faults(layout: Layout) -> Iterator[tuple[str, str]]:
    roles = [partition.role for disk in layout.disks for partition in disk.partitions]
    for role, what in (("root", "the clone needs exactly one root"), ("esp", "UEFI machines boot from exactly one")):
        count = roles.count(role)  # type: ignore[arg-type]
        if count != 1:
            yield "disks", f"disks: {count or 'no'} partitions of role '{role}'; {what}"


def _mount_faults(layout: Layout) -> Iterator[tuple[str, str]]:
    seen: dict[str, str] = {}
    esp = ""
    for path, partition in _partitions(layout):
        content = partition.content
        if not isinstance(content, Filesystem):
            continue
        where, mount = f"{path}.content.mount", content.mount
        if mount in seen:
            yield where, f"{where}: '{mount}' is mounted twice, here and at {seen[mount]}"
        seen.setdefault(mount, path)
        if (partition.role == "root") != (mount == "/"):
            yield where, f"{where}: role '{partition.role}' mounted at '{mount}'; the root and only the root is at '/'"
        if any(mount == owned or mount.startswith(f"{owned}/") for owned in _KERNEL_OWNED):
            yield where, f"{where}: '{mount}' belongs to the kernel at run time"
        if partition.role == "esp":
            esp = mount
    for path, partition in _partitions(layout):
        if esp and isinstance(partition.content, Filesystem) and partition.content.mount.startswith(f"{esp}/"):
            where = f"{path}.content.mount"
            yield where, f"{where}: '{partition.content.mount}' would lie inside the esp"


def _partitions(layout: Layout) -> Iterator[tuple[str, Partition]]:
    for index, disk in enumerate(layout.disks):
        for number, partition in enumerate(disk.partitions):
            yield f"disks[{index}].partitions[{number}]", partition
