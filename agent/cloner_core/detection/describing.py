"""What lies on a device, as the content of a layout: filesystems, swap, encryption, members of arrays and of groups.

Arrays and groups are met at their members; what they hold is described once, when all members are known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, cast

from cloner_core.detection.mounting import Place
from cloner_core.detection.parsing import ArraySeen, Block, LogicalSeen, parse_subvolumes, parse_unlock
from cloner_core.detection.seeing import Findings, Seen
from cloner_core.detection.sizing import fixed, with_growing_volume
from cloner_core.layout import (
    Array,
    ArrayMember,
    Content,
    Filesystem,
    LogicalVolume,
    Luks,
    Nothing,
    PhysicalVolume,
    Subvolume,
    Swap,
    Unlock,
    VolumeGroup,
    mapper_name,
)
from cloner_core.layout.reading import MAX_ITEMS
from cloner_core.sizes import KIB, MIB

_EXCLUDE: Final = "or leave its disk out: --exclude-devices"
_NO_MOUNT: Final = "mount it by /etc/fstab, wipe it, or keep it as it is: --exclude-devices"
_KINDS: Final = {"ext2": "ext4", "ext3": "ext4", "ext4": "ext4", "xfs": "xfs", "vfat": "vfat"}
_LEVELS: Final = ("raid0", "raid1", "raid5", "raid6", "raid10")
_NEAR_2: Final = 0x102  # of raid10, the only one a layout makes (drivers/md/raid10.c, setup_geo)
_LEFT_SYMMETRIC: Final = 2  # of raid5 and raid6 (drivers/md/raid5.h)
_MADE_BY_PROGRAMS: Final = (".snapshots/", "var/lib/docker/", "var/lib/containers/")
# Kinds that are a part of something bigger, and what it would take
_FOREIGN: Final = {
    "zfs_member": ("is part of a ZFS pool", f"no layout describes ZFS: write one by hand, {_EXCLUDE}"),
    "bcache": ("is part of a bcache", f"no layout describes bcache: detach the cache, {_EXCLUDE}"),
    "isw_raid_member": ("is in an array of Intel's firmware", f"use md arrays of Linux, {_EXCLUDE}"),
    "ddf_raid_member": ("is in a DDF array of the firmware", f"use md arrays of Linux, {_EXCLUDE}"),
    "drbd": ("is a DRBD device", _EXCLUDE.removeprefix("or ")),
    "BitLocker": ("is encrypted by Windows", "keep it as it is: --exclude-devices"),
    "ntfs": ("holds a filesystem of Windows (ntfs)", "keep it as it is: --exclude-devices"),
}


class Describing:
    """Describes devices; meets arrays and groups on the way."""

    def __init__(self, seen: Seen, findings: Findings) -> None:
        """Take what is known of the machine, and where faults and notes go."""
        self.seen = seen
        self.findings = findings
        self._array_ids: dict[str, str] = {}  # by path
        self._array_members: dict[str, set[str]] = {}
        self._group_members: dict[str, set[str]] = {}
        self._readers: dict[str, Callable[[Block], Content]] = {
            "": self._swap_or_nothing,
            "swap": self._swap_or_nothing,
            "btrfs": self._btrfs,
            "crypto_LUKS": self._luks,
            "linux_raid_member": self._array_member,
            "LVM2_member": self._physical_volume,
            **dict.fromkeys(_KINDS, self._filesystem),
        }

    def content(self, block: Block) -> Content:
        """Return what lies on `block`; what cannot be described is noted, and Nothing stands for it."""
        if name := self.seen.random_mapping(block):
            return Luks(name=name, unlock=Unlock("random"), content=Swap())
        if read := self._readers.get(block.filesystem):
            return read(block)
        what, remedy = _FOREIGN.get(
            block.filesystem, (f"holds '{block.filesystem}'", f"no layout describes it: wipe it, {_EXCLUDE}")
        )
        self.findings.fault(block.path, what, remedy)
        return Nothing()

    def arrays(self) -> tuple[Array, ...]:
        """Return the arrays whose members were met, with what they hold."""
        return tuple(self._array(path, name) for path, name in self._array_ids.items())

    def groups(self) -> tuple[VolumeGroup, ...]:
        """Return the volume groups whose physical volumes were met; after `arrays`."""
        return tuple(self._group(name) for name in self._group_members)

    def _swap_or_nothing(self, block: Block) -> Content:
        self._nothing_above(block)
        if block.filesystem == "swap":
            return Swap(label=block.label, source_uuid=block.uuid)
        places, kinds = self.seen.mounted(block), self.seen.kinds(block)
        if kinds:
            told = f"holds more than one thing: {', '.join(kinds)}"
            self.findings.fault(block.path, told, f"wipe what is out of date (wipefs), {_EXCLUDE}")
        elif places:
            self.findings.fault(
                block.path, f"is mounted at {places[0].mount}, and what it holds is not known", _EXCLUDE[3:]
            )
        return Nothing()

    def _nothing_above(self, block: Block) -> None:
        for one in self.seen.children(block):
            what = "has partitions inside" if one.kind == "part" else f"carries {one.path} ({one.kind})"
            self.findings.fault(
                block.path, what, f"no layout describes devices nested so: move it to a plain one, {_EXCLUDE}"
            )
            return

    def _filesystem(self, block: Block) -> Content:
        self._nothing_above(block)
        place = self._only_place(block)
        if place is None:
            return Nothing()
        if block.filesystem in ("ext2", "ext3"):
            self.findings.note(f"{block.path} is {block.filesystem}; clones get ext4 there")
        kind = _KINDS[block.filesystem]
        options = "defaults" if kind == "vfat" and place.options == "umask=0077" else place.options
        return Filesystem(
            kind=cast(Literal["ext4", "xfs", "vfat"], kind),
            mount=place.mount,
            label=self._label(block),
            options=options,
            source_uuid=block.uuid,
        )

    def _only_place(self, block: Block) -> Place | None:
        places = self.seen.mounted(block)
        if not places:
            label = f" '{block.label}'" if block.label else ""
            self.findings.fault(block.path, f"holds {block.filesystem}{label}, which nothing mounts", _NO_MOUNT)
            return None
        for other in places[1:]:
            self.findings.note(f"{block.path} is mounted at {other.mount} as well, which the image's own fstab says")
        return places[0]

    def _label(self, block: Block) -> str:
        if block.filesystem == "vfat" and block.label != block.label.upper():
            self.findings.note(f"the label of {block.path} is written in upper case on clones, as FAT has it")
            return block.label.upper()
        return block.label

    def _btrfs(self, block: Block) -> Content:
        self._nothing_above(block)
        parts = self.seen.twins(block)
        if len(parts) > 1:
            told = f"is one of {len(parts)} devices of a btrfs ({', '.join(parts)})"
            remedy = f"no layout describes that: use an md array beneath one btrfs, {_EXCLUDE}"
            self.findings.fault(block.path, told, remedy)
            return Nothing()
        places = self.seen.mounted(block)
        listed = self.seen.told.btrfs.get(block.uuid)
        if not places or listed is None:
            self.findings.fault(block.path, "holds btrfs, which is not mounted", _NO_MOUNT)
            return Nothing()
        known = parse_subvolumes(listed)
        mounted: dict[str, Place] = {}
        for place in places:
            by_number = known.by_id.get(place.subvolume_id, "") if place.subvolume_id else known.default
            name = by_number if place.subvolume is None else place.subvolume
            if name and name not in known.paths:
                self.findings.fault(block.path, f"has no subvolume '{name}', mounted at {place.mount}", "mend fstab")
            elif name in mounted:
                self.findings.note(
                    f"{block.path}: '{name}' is mounted at {place.mount} as well, as the image's fstab says"
                )
            else:
                mounted[name] = place
        top = mounted.pop("", None)
        return Filesystem(
            kind="btrfs",
            mount=top.mount if top else "",
            label=block.label,
            options=top.options if top else "defaults",
            source_uuid=block.uuid,
            subvolumes=self._subvolumes(block, known.paths, known.snapshots, mounted),
        )

    def _subvolumes(
        self, block: Block, paths: tuple[str, ...], snapshots: frozenset[str], mounted: dict[str, Place]
    ) -> tuple[Subvolume, ...]:
        made = [
            path
            for path in paths
            if path in mounted or not (path in snapshots or any(word in f"/{path}/" for word in _MADE_BY_PROGRAMS))
        ]
        if left := len(paths) - len(made):
            self.findings.note(f"{block.path}: {left} snapshots and subvolumes of containers are not made on clones")
        if len(made) > MAX_ITEMS:
            told = f"has {len(made)} subvolumes; a layout has {MAX_ITEMS} at most"
            self.findings.fault(
                block.path, told, "remove those that a clone does not need, or write the layout by hand"
            )
        return tuple(
            Subvolume(name=path, mount=mounted[path].mount, options=mounted[path].options)
            if path in mounted
            else Subvolume(name=path)
            for path in sorted(made)
        )

    def _luks(self, block: Block) -> Content:
        mapping = next((one for one in self.seen.children(block) if one.kind == "crypt"), None)
        if mapping is None:
            remedy = "open it (cryptsetup open), wipe it, or keep it as it is: --exclude-devices"
            self.findings.fault(block.path, "is encrypted and closed, so that what it holds is not known", remedy)
            return Nothing()
        content = self.content(mapping)
        if not isinstance(content, Filesystem | Swap | PhysicalVolume):
            if not isinstance(content, Nothing) or not mapping.filesystem:
                self.findings.fault(mapping.path, "holds neither a filesystem nor swap nor LVM", _EXCLUDE[3:])
            content = Swap()
        return Luks(name=mapping.name, unlock=self._unlock(block, mapping), content=content, source_uuid=block.uuid)

    def _unlock(self, block: Block, mapping: Block) -> Unlock:
        if found := parse_unlock(self.seen.told.luks.get(block.path, "")):
            return found
        entry = self.seen.crypttab.get(mapping.name)
        if entry and any(option.startswith("tpm2-device=") for option in entry.options):
            return Unlock("tpm2")
        self.findings.note(
            f"{block.path} is unlocked by no TPM here, so clones ask for a passphrase at each boot;"
            " 'unlock: tpm2' in the layout has them start by themselves"
        )
        return Unlock("passphrase")

    def _array_member(self, block: Block) -> Content:
        above = [one for one in self.seen.children(block) if one.path in self.seen.arrays]
        if len(above) != 1:
            remedy = f"start it (mdadm --assemble --scan), wipe it (mdadm --zero-superblock), {_EXCLUDE}"
            self.findings.fault(block.path, "is a member of an md array that does not run", remedy)
            return Nothing()
        path = above[0].path
        if path not in self._array_ids:
            self._array_ids[path] = self._array_id(path, self.seen.arrays[path])
        self._array_members.setdefault(path, set()).add(block.path)
        return ArrayMember(self._array_ids[path])

    def _array_id(self, path: str, array: ArraySeen) -> str:
        name = (array.name or path.rpartition("/")[2]).lower()
        return name if name not in self._array_ids.values() else path.rpartition("/")[2]

    def _array(self, path: str, name: str) -> Array:
        array, told = self.seen.arrays[path], self.seen.told.arrays[path]
        members = self._array_members[path]
        lacking = [member for member in array.members if member not in members]
        wrong_form = {"raid10": told.layout != _NEAR_2, "raid5": told.layout != _LEFT_SYMMETRIC}
        wrong_form["raid6"] = wrong_form["raid5"]
        by_hand = f"write the layout by hand, {_EXCLUDE}"
        for is_so, what, remedy in (
            (bool(array.container), f"lies in {array.container}, an array of the firmware", by_hand),
            (array.level not in _LEVELS, f"is of level '{array.level}', which no layout describes", by_hand),
            (array.metadata not in ("1.0", "1.2"), f"has metadata {array.metadata}; a layout has 1.0 or 1.2", by_hand),
            (bool(array.spares), f"has spare members ({', '.join(array.spares)})", "remove them: mdadm --remove"),
            (len(array.members) < array.size, f"has {len(array.members)} of {array.size} members", "repair it first"),
            (bool(lacking), f"lies on {', '.join(lacking)} as well", "which the layout leaves out: take all, or none"),
            (array.level in wrong_form and wrong_form[array.level], "has its data in an uncommon order", by_hand),
        ):
            if is_so:
                self.findings.fault(path, f"(array '{name}') {what}", remedy)
        block = self.seen.blocks[path]
        content = self.content(block)
        if not isinstance(content, Filesystem | Swap | PhysicalVolume | Luks):
            if not block.filesystem or isinstance(content, ArrayMember):
                self.findings.fault(path, "holds no filesystem, swap, LVM or LUKS", _EXCLUDE[3:])
            content = Swap()
        return Array(
            id=name,
            level=cast(Literal["raid1"], array.level if array.level in _LEVELS else "raid1"),
            content=content,
            metadata="1.0" if array.metadata == "1.0" else "1.2",
            chunk_kib=(told.chunk_bytes // KIB if array.level != "raid1" else 0) or 512,
        )

    def _physical_volume(self, block: Block) -> Content:
        group = self.seen.physical.get(block.path)
        if not group:
            told = "is a physical volume of no volume group" if group == "" else "is a physical volume LVM does not see"
            self.findings.fault(block.path, told, f"remove it (pvremove), {_EXCLUDE}")
            return Nothing()
        self._group_members.setdefault(group, set()).add(block.path)
        return PhysicalVolume(group)

    def _group(self, name: str) -> VolumeGroup:
        members = self._group_members[name]
        lacking = [path for path, group in self.seen.physical.items() if group == name and path not in members]
        seen = self.seen.groups.get(name)
        extent = seen.extent_bytes if seen else 0
        for is_so, what, remedy in (
            (bool(lacking), f"lies on {', '.join(lacking)} as well", "which the layout leaves out: take all, or none"),
            (seen is not None and seen.missing > 0, "lacks physical volumes", "repair it first: vgreduce, vgextend"),
            (seen is not None and seen.is_exported, "is exported", "vgimport it"),
            (
                extent < MIB or extent % MIB != 0 or extent > 1024 * MIB,
                f"has extents of {extent} bytes",
                "a layout has 1 MiB to 1 GiB, in whole MiB: vgchange --physicalextentsize",
            ),
        ):
            if is_so:
                self.findings.fault(f"volume group '{name}'", what, remedy)
        volumes = tuple(self._volume(one) for one in self._volumes_of(name))
        if not volumes:
            self.findings.fault(f"volume group '{name}'", "has no volumes", "make one, or remove the group: vgremove")
        group = VolumeGroup(name=name, volumes=volumes, extent_mib=max(extent // MIB, 1))
        return with_growing_volume(group, seen.size_bytes, seen.free_bytes) if seen else group

    def _volumes_of(self, group: str) -> list[LogicalSeen]:
        """Return the volumes of a group that a layout describes, each once; LVM lists one for each of its segments."""
        found: dict[str, LogicalSeen] = {}
        for one in self.seen.logical:
            if one.group != group:
                continue
            if one.kind not in ("linear", "striped") or one.stripes > 1 or one.origin:
                kind = f"a snapshot of '{one.origin}'" if one.origin else f"striped over {one.stripes}"
                kind = kind if one.origin or one.kind in ("linear", "striped") else f"of the kind '{one.kind}'"
                remedy = f"a layout has linear volumes: remove it (lvremove), convert it (lvconvert), {_EXCLUDE}"
                self.findings.fault(f"{group}/{one.name}", f"is {kind}", remedy)
            elif not one.is_active:
                self.findings.fault(f"{group}/{one.name}", "is not active", "activate it (lvchange -ay), or remove it")
            else:
                found[one.name] = one
        return list(found.values())

    def _volume(self, one: LogicalSeen) -> LogicalVolume:
        path = f"/dev/mapper/{mapper_name(one.group, one.name)}"
        block = self.seen.blocks.get(path)
        content: Content = Nothing()
        if block is None:
            self.findings.fault(path, "is not shown by lsblk", "wait for udev, or look why: lsblk")
        else:
            content = self.content(block)
            if isinstance(content, PhysicalVolume | ArrayMember) or not (block.filesystem or isinstance(content, Luks)):
                what = "is part of something bigger" if block.filesystem else "holds nothing that is known"
                self.findings.fault(
                    path, what, "make a filesystem on it, remove it (lvremove), or write the layout by hand"
                )
        fit = content if isinstance(content, Filesystem | Swap | Luks) else Swap()
        return LogicalVolume(name=one.name, size=fixed(one.size_bytes), content=fit)
