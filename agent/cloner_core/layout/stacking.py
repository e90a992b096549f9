"""What lies on what in a layout: arrays over their members, volume groups over their physical volumes.

Only references by name; what a container may hold is the types' and the document's to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from cloner_core.layout.types import ArrayMember, Layout, Luks, PhysicalVolume

LEAST_MEMBERS: Final = {"raid0": 2, "raid1": 2, "raid5": 3, "raid6": 4, "raid10": 2}
_ARRAY = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")  # mdadm cuts names at 32
_LVM = re.compile(r"[A-Za-z0-9+_][A-Za-z0-9+_.-]{0,62}")  # lvm(8), VALID NAMES
_RESERVED = re.compile(r"\.|\.\.|snapshot.*|pvmove.*|.*(_cdata|_cmeta|_corig|_mimage|_mlog|_pmspare|_rimage|_rmeta).*")


def stacking_faults(layout: Layout, *, is_whole: bool) -> Iterator[tuple[str, str]]:
    """Give (path, fault) of every broken reference, and of names that tools would not take.

    Where the layout is not `is_whole`, because something could not be read, nothing is said to be missing.
    """
    yield from _array_faults(layout, is_whole=is_whole)
    yield from _group_faults(layout, is_whole=is_whole)
    yield from _mapping_faults(layout)


def _array_faults(layout: Layout, *, is_whole: bool) -> Iterator[tuple[str, str]]:
    ids = [array.id for array in layout.arrays]
    members: dict[str, list[str]] = {name: [] for name in ids}
    for path, content in layout.contents():
        if isinstance(content, ArrayMember):
            if content.array not in members:
                yield f"{path}.array", f"{path}.array: there is no array '{content.array}'"
            members.setdefault(content.array, []).append(path)
    for index, array in enumerate(layout.arrays):
        path = f"arrays[{index}]"
        if not _ARRAY.fullmatch(array.id):
            yield (
                f"{path}.id",
                f"{path}.id: '{array.id}' is not a name (32 lower-case letters, digits, hyphens at most)",
            )
        elif array.id in ids[:index]:
            yield f"{path}.id", f"{path}.id: '{array.id}' is used twice"
        if array.chunk_kib & (array.chunk_kib - 1):
            yield f"{path}.chunk_kib", f"{path}.chunk_kib: {array.chunk_kib} is not a power of two"
        found = members[array.id]
        if is_whole and len(found) < LEAST_MEMBERS[array.level]:
            told = f"has {len(found)} members; {array.level} needs {LEAST_MEMBERS[array.level]}"
            yield path, f"{path}: array '{array.id}' {told}"
        disks = [place.split(".", 1)[0] for place in found]
        for place, disk in zip(found, disks, strict=True):
            if disks.count(disk) > 1:
                yield place, f"{place}: '{array.id}' has two members on one disk, and would be lost with it"


def _group_faults(layout: Layout, *, is_whole: bool) -> Iterator[tuple[str, str]]:
    names = [group.name for group in layout.groups]
    used: set[str] = set()
    for path, content in layout.contents():
        if not isinstance(content, PhysicalVolume):
            continue
        used.add(content.group)
        if content.group not in names:
            yield f"{path}.group", f"{path}.group: there is no volume group '{content.group}'"
        elif path.startswith("groups["):
            yield path, f"{path}: a physical volume cannot lie on a logical volume"
    for index, group in enumerate(layout.groups):
        path = f"groups[{index}]"
        if not _LVM.fullmatch(group.name) or _RESERVED.fullmatch(group.name):
            yield f"{path}.name", f"{path}.name: '{group.name}' is not a name that LVM takes"
        elif group.name in names[:index]:
            yield f"{path}.name", f"{path}.name: '{group.name}' is used twice"
        if is_whole and group.name not in used:
            yield path, f"{path}: nothing is a physical volume of '{group.name}'"
        if group.extent_mib & (group.extent_mib - 1):
            yield f"{path}.extent_mib", f"{path}.extent_mib: {group.extent_mib} is not a power of two"
        volumes = [volume.name for volume in group.volumes]
        for number, name in enumerate(volumes):
            where = f"{path}.volumes[{number}].name"
            if not _LVM.fullmatch(name) or _RESERVED.fullmatch(name):
                yield where, f"{where}: '{name}' is not a name that LVM takes"
            elif name in volumes[:number]:
                yield where, f"{where}: '{name}' is used twice"


def _mapping_faults(layout: Layout) -> Iterator[tuple[str, str]]:
    """Names of mappings share one folder, /dev/mapper, with those of logical volumes."""
    taken = {mapper_name(group.name, one.name): "volume" for group in layout.groups for one in group.volumes}
    for path, content in layout.contents():
        if isinstance(content, Luks):
            if content.name in taken:
                yield f"{path}.name", f"{path}.name: '{content.name}' is the name of another mapping"
            taken[content.name] = path


def mapper_name(group: str, volume: str) -> str:
    """Return what device mapper calls a logical volume: hyphens doubled, "vg0-root" (lvm2, libdm build_dm_name)."""
    return f"{group.replace('-', '--')}-{volume.replace('-', '--')}"
