"""What lies on several disks at once: arrays, volume groups, pools, filesystems of several devices.

Pure. Tells which of them would be torn, half destroyed and half left, by what a plan destroys. What is hidden inside
something else (a volume group in an array that is not assembled, or in LUKS) nobody can tell here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from cloner_core.describing import describe_disk, one_line
from cloner_core.facts import Disk

# In words, by what blkid calls a member.
_WHOLES = {
    "LVM2_member": "volume group",
    "linux_raid_member": "array",
    "isw_raid_member": "array of the firmware",
    "ddf_raid_member": "array of the firmware",
    "btrfs": "btrfs filesystem",
    "zfs_member": "ZFS pool",
}


@dataclass(frozen=True, slots=True)
class Member:
    """One device of a whole."""

    device: str  # "/dev/vda2"
    disk: Disk


@dataclass(frozen=True, slots=True)
class Whole:
    """What is made of several devices: `kind` in words, its name, and the members that were found."""

    kind: str  # "volume group"
    name: str  # "vg0"; its UUID when it has no name
    uuid: str
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Torn:
    """A whole of which a part would be destroyed."""

    whole: Whole
    lost: tuple[Member, ...]
    left: tuple[Member, ...]

    def __str__(self) -> str:
        """Say it in one line."""
        lost = ", ".join(member.device for member in self.lost)
        left = ", ".join(f"{member.device} on {describe_disk(member.disk)}" for member in self.left)
        return one_line(f"{self.whole.kind} '{self.whole.name}' lies on {lost} and also on {left}")


def wholes(disks: Sequence[Disk]) -> tuple[Whole, ...]:
    """Return all that the disks have members of, those with a single member too, in the order they were found."""
    found: dict[tuple[str, str], tuple[str, str, list[Member]]] = {}
    for disk in disks:
        for signature in disk.signatures:
            kind = _WHOLES.get(signature.kind, "")
            uuid = signature.group_uuid or signature.group
            if kind and uuid:
                _, _, members = found.setdefault((kind, uuid), (signature.group, uuid, []))
                members.append(Member(signature.device, disk))
    return tuple(Whole(kind, name or uuid, uuid, tuple(members)) for (kind, _), (name, uuid, members) in found.items())


def torn(disks: Sequence[Disk], lost: Collection[str]) -> tuple[Torn, ...]:
    """Return every whole with members among the devices `lost` and others that stay; `disks` are all of the machine.

    `lost` names what loses its content: each old partition of a chosen disk that is not kept, and the disk itself
    (`lost_with`).
    """
    found = []
    for whole in wholes(disks):
        going = tuple(member for member in whole.members if member.device in lost)
        staying = tuple(member for member in whole.members if member.device not in lost)
        if going and staying:
            found.append(Torn(whole, going, staying))
    return tuple(found)


def lost_with(disks: Sequence[Disk], *, kept: Collection[str] = ()) -> frozenset[str]:
    """Return the devices that lose their content when `disks` are laid out anew, except the partitions `kept`."""
    devices = {disk.path for disk in disks} | {found.device for disk in disks for found in disk.signatures}
    return frozenset(devices - set(kept))
