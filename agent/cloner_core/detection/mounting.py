"""Where a machine mounts its filesystems: as its fstab says, else as they are mounted now.

Must not judge what is mounted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from cloner_core.detection.parsing import Block, MountSeen
from cloner_core.facts import Disk
from cloner_core.fstab import Entry
from cloner_core.layout import mapper_name

_TAGGED = re.compile(r'(UUID|LABEL|PARTUUID|PARTLABEL)="?([^"]*)"?')
_LOCAL = re.compile(r"(UUID|LABEL|PARTUUID|PARTLABEL)=|/dev/")
_BY = re.compile(r"/dev/disk/by-(uuid|label|partuuid|partlabel)/(.+)")
_VOLUME = re.compile(r"/dev/([^/]+)/([^/]+)")
_SUBVOLUME = re.compile(r"subvol=/?(.*)")
_SUBVOLUME_ID = re.compile(r"subvolid=(?:0x)?(\d+)")
_OTHERS = ("/run", "/proc", "/sys", "/dev", "/tmp")
_OPTIONAL = frozenset({"noauto", "nofail", "bind", "rbind"})


class Place(msgspec.Struct, frozen=True):
    """One mount point of a device."""

    mount: str
    options: str = "defaults"  # without the subvolume
    subvolume: str | None = None  # path from the top, "" the top; None: the filesystem's default
    subvolume_id: int = 0  # where that is all that is told


class Places(msgspec.Struct, frozen=True):
    """All mount points, by path of the device."""

    by_device: Mapping[str, tuple[Place, ...]]
    unknown: tuple[Entry, ...]  # of fstab: what is mounted at boot from a device that is not there


class Names:
    """Finds a device by what fstab(5) and crypttab(5) call it."""

    def __init__(self, blocks: Mapping[str, Block], disks: Sequence[Disk], arrays: Mapping[str, str]) -> None:
        """`arrays` is path by name."""
        self._blocks = blocks
        self._arrays = arrays
        self._part_names = {
            entry.name: entry.part_uuid for disk in disks for entry in disk.partitions if entry.name and entry.part_uuid
        }

    def find(self, spec: str) -> str:
        """Return the path of the device `spec` names; "" when none does."""
        tagged = _TAGGED.fullmatch(spec)
        by = _BY.fullmatch(spec)
        if tagged or by:
            tag, value = (tagged[1], tagged[2]) if tagged else (by[1].upper(), _unescaped(by[2])) if by else ("", "")
            return self._tagged(tag, value)
        if spec in self._blocks:
            return spec
        volume = _VOLUME.fullmatch(spec)
        if volume and volume[1] == "md":
            return self._arrays.get(volume[2], "")
        mapping = f"/dev/mapper/{mapper_name(volume[1], volume[2])}" if volume else ""
        return mapping if mapping in self._blocks else ""

    def _tagged(self, tag: str, value: str) -> str:
        if tag == "PARTLABEL":
            tag, value = "PARTUUID", self._part_names.get(value, "")
        if not value:
            return ""
        field = {"UUID": "uuid", "LABEL": "label", "PARTUUID": "part_uuid"}[tag]
        matching = [
            block.path
            for block in self._blocks.values()
            if getattr(block, field).lower() == value.lower() or (tag == "LABEL" and block.label == value)
        ]
        return _uppermost(matching, self._blocks)


def places(names: Names, fstab: Sequence[Entry], mounted: Sequence[MountSeen], root: str) -> Places:
    """Return where each device is mounted; `root` is where the tree is mounted whose fstab it is."""
    found: dict[str, list[Place]] = {}
    unknown = []
    for entry in fstab:
        if entry.kind == "swap" or not entry.mount.startswith("/"):
            continue
        device = names.find(entry.device)
        if device:
            found.setdefault(device, []).append(_place(entry.mount, entry.options))
        elif _LOCAL.match(entry.device) and not _OPTIONAL & set(entry.options.split(",")):
            unknown.append(entry)
    told = frozenset(found)
    prefix = root.rstrip("/")
    for seen in mounted:
        device = names.find(seen.source)
        inside = seen.target.startswith(f"{prefix}/") or seen.target == (prefix or "/")
        target = seen.target.removeprefix(prefix) or "/"
        others = any(target == other or target.startswith(f"{other}/") for other in _OTHERS)
        is_part = seen.within != "/" and seen.filesystem != "btrfs"  # a bind mount shows it a second time
        if device and device not in told and inside and not others and not is_part:
            subvolume = seen.within.strip("/") if seen.filesystem == "btrfs" else None
            mine = found.setdefault(device, [])
            if not any(one.subvolume == subvolume for one in mine):
                mine.append(Place(target, subvolume=subvolume))
    return Places({device: tuple(dict.fromkeys(mine)) for device, mine in found.items()}, tuple(unknown))


def _place(mount: str, options: str) -> Place:
    kept: list[str] = []
    subvolume: str | None = None
    number = 0
    for word in options.split(","):
        if match := _SUBVOLUME.fullmatch(word):
            subvolume = match[1].strip("/")
        elif match := _SUBVOLUME_ID.fullmatch(word):
            number = int(match[1])
        elif word:
            kept.append(word)
    return Place(mount, ",".join(kept) or "defaults", subvolume, number)


def _uppermost(matching: Sequence[str], blocks: Mapping[str, Block]) -> str:
    """Return the device that lies on the others: of a disk on two cables the mapping, not a cable."""
    if not matching:
        return ""
    return next((path for path in matching if not set(blocks[path].children) & set(matching)), matching[0])


def _unescaped(name: str) -> str:
    """Return what udev wrote into the name of a link: every special character as two hexadecimal digits."""
    return re.sub(r"\\x([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), name)
