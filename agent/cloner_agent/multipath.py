"""Several devices of the kernel that are one disk: the same disk reached by more than one cable.

Works on what was found out; must not open a device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from cloner_core.facts import Disk

# By these a disk has one cable only, and cheap bridges repeat serials and WWNs.
_ONE_PATH_BUSES = ("ata", "mmc", "usb", "virtio")
# sysfs access_state of SCSI (ALUA): drivers/scsi/scsi_sysfs.c; a standby path answers reads with an error.
_STATES = ("active/optimized", "", "active/non-optimized")


def as_one(disks: Sequence[Disk], access_states: Mapping[str, str]) -> tuple[Disk, ...]:
    """Return each disk once, by its best path, the others in `paths`; `access_states` by path, as sysfs has them.

    Two devices are one disk when WWN, serial and size are the same: all three, because a WWN alone is repeated by
    some makers.
    """
    groups: dict[tuple[object, ...], list[Disk]] = {}
    for disk in disks:
        is_told = bool(disk.wwn and disk.serial) and disk.bus not in _ONE_PATH_BUSES
        # Parted by sector size too: a namespace reached by another controller would not differ in it.
        identity = (disk.wwn, disk.serial, disk.size_bytes, disk.sector_bytes) if is_told else (disk.path,)
        groups.setdefault(identity, []).append(disk)
    return tuple(_merged(sorted(group, key=lambda disk: _rank(disk, access_states))) for group in groups.values())


def _merged(group: Sequence[Disk]) -> Disk:
    best = group[0]
    if len(group) == 1:
        return best
    return msgspec.structs.replace(
        best,
        paths=tuple(sorted(disk.path for disk in group[1:])),
        is_mounted=any(disk.is_mounted for disk in group),
        is_read_only=any(disk.is_read_only for disk in group),
        held_by=tuple(dict.fromkeys(holder for disk in group for holder in disk.held_by)),
    )


def _rank(disk: Disk, access_states: Mapping[str, str]) -> tuple[int, int, str]:
    state = access_states.get(disk.path, "")
    return (_STATES.index(state) if state in _STATES else len(_STATES), len(disk.path), disk.path)
