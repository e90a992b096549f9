"""From what the tools of a golden node say to the layout that makes the same again.

What a layout cannot describe is a fault that names the device and says what to do; it is never left out in silence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from cloner_core.detection.choosing import check_choice, select_untouched, select_used
from cloner_core.detection.describing import Describing
from cloner_core.detection.excluding import Division, divide, left_out
from cloner_core.detection.seeing import Findings, Seen
from cloner_core.detection.sizing import small_esps
from cloner_core.detection.tabling import Tabling
from cloner_core.detection.told import Excluded, Told
from cloner_core.errors import InvalidError
from cloner_core.facts import Disk
from cloner_core.layout import (
    Array,
    ArrayMember,
    Content,
    DiskLayout,
    Layout,
    Luks,
    PhysicalVolume,
    SwapFile,
    VolumeGroup,
    layout_document,
    mounts_of,
    parse_layout,
)
from cloner_core.plan.filesystems import fat32_minimum_bytes
from cloner_core.sizes import MIB, format_bytes

_NOTHING: Final = Excluded()
_HEADLINE: Final = "no layout describes the disks of this machine"
_PLACE: Final = re.compile(r"disks\[\d+\](?:\.partitions\[\d+\])?|groups\[\d+\]\.volumes\[\d+\]|arrays\[\d+\]")
_LARGE_SECTOR: Final = 4096


class Drive(msgspec.Struct, frozen=True):
    """A disk that was found, and what the layout makes of it."""

    path: str
    size_bytes: int
    model: str
    use: str  # "system", as the layout calls it; "left out"; "not used"


class Detected(msgspec.Struct, frozen=True):
    """The layout of a machine, and what an admin should know about it."""

    layout: Layout
    notes: tuple[str, ...] = ()
    drives: tuple[Drive, ...] = ()  # all of the machine
    left_out: tuple[str, ...] = ()  # where devices are mounted that are no part of it: content of no image


class UndescribedError(InvalidError):
    """No layout describes the disks of a machine; `left_out` is as in `Detected`."""

    def __init__(self, why: InvalidError, left_out: tuple[str, ...]) -> None:
        self.left_out = left_out
        super().__init__(why.message.partition("\n")[0], faults=why.faults, hint=why.hint)


def detect(told: Told, name: str, excluded: Excluded = _NOTHING) -> Detected:
    """Return the layout called `name` that makes on another machine what `told` says of this one.

    Raises UndescribedError that names every device that no layout describes, and what to do.
    """
    findings = Findings()
    seen = Seen(told)
    division = divide(seen, excluded, findings)
    mounts = left_out(seen, division)
    try:
        detected = _described(seen, name, excluded, division, findings)
    except InvalidError as why:
        raise UndescribedError(why, mounts) from why
    return msgspec.structs.replace(detected, left_out=mounts)


def _described(seen: Seen, name: str, excluded: Excluded, division: Division, findings: Findings) -> Detected:
    told = seen.told
    describing = Describing(seen, findings)
    tabling = Tabling(describing, division.usable, division.kept)
    made = [(disk, one) for disk in division.usable if (one := tabling.disk(disk)) is not None]
    arrays, groups = describing.arrays(), describing.groups()
    for entry in seen.places.unknown:
        findings.note(f"/etc/fstab mounts {entry.mount} from {entry.device}, which is not there")
    if findings.faults:
        raise InvalidError(_HEADLINE, faults=findings.faults, hint="what a layout can describe: docs/layout.md")
    used = [disk for disk, _ in made]
    selectors = select_used(division.usable, used)
    ids = _ids([one for _, one in made], arrays, groups)
    layout = Layout(
        name=name,
        disks=tuple(
            msgspec.structs.replace(one, id=name, select=selectors[disk.path])
            for name, (disk, one) in zip(ids, made, strict=True)
        ),
        arrays=arrays,
        groups=groups,
        swapfiles=tuple(SwapFile(path, -(-size // MIB) * MIB) for path, size in sorted(told.swapfiles.items())),
        untouched=(
            *excluded.selectors,
            *select_untouched((*division.usable, *division.excluded), used, division.excluded),
        ),
    )
    _check_rules(layout, _origins(made, arrays, seen, tabling))
    check_choice(layout, told.disks, dict(zip(ids, (disk.path for disk in used), strict=True)))
    for size in small_esps(layout, fat32_minimum_bytes(_LARGE_SECTOR)):
        told_size = f"the esp of {format_bytes(size)} is too small for disks with sectors of {_LARGE_SECTOR} bytes"
        findings.note(f"{told_size}; 512MiB would do")
    uses = {disk.path: "left out" for disk in division.excluded}
    uses |= {disk.path: name for name, disk in zip(ids, used, strict=True)}
    drives = [Drive(one.path, one.size_bytes, one.model, uses.get(one.path, "not used")) for one in told.disks]
    return Detected(layout, tuple(findings.notes), tuple(drives))


def _check_rules(layout: Layout, origins: Mapping[str, str]) -> None:
    """Raise InvalidError with the devices that faults are about, when the document of `layout` would be refused."""
    try:
        parse_layout(msgspec.json.encode(layout_document(layout)))
    except InvalidError as broken:
        faults = []
        for fault in broken.faults:
            place = _PLACE.match(fault)
            device = origins.get(place[0], "") if place else ""
            faults.append(f"{device}: {fault}" if device else fault)
        raise InvalidError(_HEADLINE, faults=faults, hint=broken.hint) from broken


def _origins(
    made: Sequence[tuple[Disk, DiskLayout]], arrays: Sequence[Array], seen: Seen, tabling: Tabling
) -> dict[str, str]:
    """Return the device of each disk, partition and array by its path in the document."""
    found = {}
    for index, (disk, one) in enumerate(made):
        found[f"disks[{index}]"] = disk.path
        if one.partitions:
            for number, entry in enumerate(tabling.entries(disk)):
                found[f"disks[{index}].partitions[{number}]"] = seen.partition(disk, entry).path
    names = {array.name.lower(): path for path, array in seen.arrays.items()}
    found |= {f"arrays[{index}]": names.get(array.id, array.id) for index, array in enumerate(arrays)}
    return found


def _ids(disks: Sequence[DiskLayout], arrays: Sequence[Array], groups: Sequence[VolumeGroup]) -> list[str]:
    """Return what the disks are called: those that carry the root or the ESP "system", the others "data"."""
    kinds = ["system" if _is_system(one, arrays, groups) else "data" for one in disks]
    return [
        kind if kinds.count(kind) == 1 else f"{kind}{kinds[: index + 1].count(kind)}"
        for index, kind in enumerate(kinds)
    ]


def _is_system(disk: DiskLayout, arrays: Sequence[Array], groups: Sequence[VolumeGroup]) -> bool:
    contents = [one.content for one in disk.partitions] + ([disk.content] if disk.content else [])
    has_esp = any(one.role == "esp" for one in disk.partitions)
    return has_esp or any("/" in _carried(content, arrays, groups) for content in contents)


def _carried(content: Content, arrays: Sequence[Array], groups: Sequence[VolumeGroup]) -> set[str]:
    """Return what is mounted from `content` and from everything that lies on it."""
    match content:
        case ArrayMember(array=name):
            return {mount for one in arrays if one.id == name for mount in _carried(one.content, arrays, groups)}
        case PhysicalVolume(group=name):
            volumes = [volume for one in groups if one.name == name for volume in one.volumes]
            return {mount for volume in volumes for mount in _carried(volume.content, arrays, groups)}
        case Luks():
            return _carried(content.content, arrays, groups)
    return set(mounts_of(content))
