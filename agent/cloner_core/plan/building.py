"""From the chosen disks upwards: partitions, arrays, encryption, volume groups, and what lies on them.

Sizes are solved from below, for a container is as large as what carries it; what must fit is asked from above, for
what carries must be large enough. Must not choose disks, nor write steps.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from cloner_core.describing import describe_disk
from cloner_core.facts import Disk
from cloner_core.identifiers import identifier, md_uuid, volume_id
from cloner_core.layout import (
    Array,
    ArrayMember,
    Content,
    DiskLayout,
    EspCopy,
    Filesystem,
    Kept,
    Layout,
    Luks,
    PhysicalVolume,
    Size,
    Swap,
    VolumeGroup,
    mounts_of,
)
from cloner_core.layout.containing import role_of
from cloner_core.messages import Cause
from cloner_core.plan.encryption import is_opened_early
from cloner_core.plan.filesystems import fat32_minimum_bytes, fits, floor_bytes, least_bytes, usable_bytes
from cloner_core.plan.keeping import kept_places, kept_volume
from cloner_core.plan.partitioning import Wanted, place
from cloner_core.plan.stacking import (
    LUKS_HEADER_BYTES,
    PV_HEADER_BYTES,
    least_member_bytes,
    plan_array,
    plan_group,
)
from cloner_core.plan.tables import table_of
from cloner_core.plan.values import (
    Contents,
    PlannedArray,
    PlannedCrypt,
    PlannedDisk,
    PlannedGroup,
    PlannedVolume,
)
from cloner_core.refusals import PlanError
from cloner_core.sizes import MIB, format_bytes


class _Device(msgspec.Struct, frozen=True):
    """A block device that is planned, and what everything on it is called and derived from."""

    path: str
    size_bytes: int
    sector_bytes: int
    purpose: str  # "system/3", "array root", "vg0/root": for people and for the identifiers
    part_uuid: str = ""
    role: str = ""  # of a partition; "" the content says it
    disk: Disk | None = None  # that it is a part of; None when it lies on several or on something else
    lasting_name: str = ""  # what it is called at every boot without anything on it

    def volume(self, filesystem: str, uuid: str, *, label: str, role: str) -> PlannedVolume:
        """Return a volume that fills the device."""
        return PlannedVolume(
            device=self.path,
            id=self.purpose,
            filesystem=filesystem,
            uuid=uuid,
            size_bytes=self.size_bytes,
            sector_bytes=self.sector_bytes,
            role=role,
            part_uuid=self.part_uuid,
            label=label,
        )


class Building:
    """What is planned so far; `disks` first, then `stack`."""

    def __init__(self, layout: Layout, chosen: Mapping[str, Disk], needs: Mapping[str, Contents], seed: str) -> None:
        """Take what everything is made from; `needs` has every mount point of `layout`."""
        self._layout = layout
        self._chosen = chosen
        self._needs = needs
        self._seed = seed
        self._members: dict[str, list[_Device]] = {array.id: [] for array in layout.arrays}
        self._physical: dict[str, list[_Device]] = {group.name: [] for group in layout.groups}
        self.disks: list[PlannedDisk] = []
        self.arrays: list[PlannedArray] = []
        self.groups: list[PlannedGroup] = []
        self.crypts: list[PlannedCrypt] = []
        self.volumes: list[PlannedVolume] = []

    def build(self, arch: str) -> None:
        """Plan everything; raises PlanError when something does not fit."""
        for wanted in self._layout.disks:
            self._disk(wanted, self._chosen[wanted.id], arch)
        for index, array in enumerate(self._layout.arrays):
            self._array(array, index)
        for group in self._layout.groups:
            self._group(group)

    def need_of(self, content: Filesystem) -> Contents:
        """Return what the version puts on a filesystem, its subvolumes included."""
        mounts = mounts_of(content)
        sources = [self._needs[mount].source_uuid for mount in mounts]
        return Contents(
            mount=mounts[0],
            allocated_bytes=sum(self._needs[mount].allocated_bytes for mount in mounts),
            inodes=sum(self._needs[mount].inodes for mount in mounts),
            source_uuid=next((source for source in sources if source), ""),
        )

    def _disk(self, wanted: DiskLayout, disk: Disk, arch: str) -> None:
        kept = kept_places(wanted, disk)
        places = place(
            disk,
            [
                Wanted(
                    size=one.size,
                    least_bytes=self._bound(one.size, one.content, disk.sector_bytes),
                    kept=kept.get(index),
                    is_logical=one.is_logical,
                )
                for index, one in enumerate(wanted.partitions)
            ],
            wanted.table,
        )
        planned = table_of(wanted, disk, places, self._seed, arch)
        self.disks.append(planned)
        if wanted.content is not None:
            whole = _Device(disk.path, disk.size_bytes, disk.sector_bytes, wanted.id, disk=disk)
            self._place(whole, wanted.content)
        entries = [one for one in planned.partitions if one.role != "extended"]
        for partition, entry in zip(wanted.partitions, entries, strict=True):
            if isinstance(partition.content, Kept):
                self.volumes += kept_volume(partition.content, entry, disk)
                continue
            device = _Device(
                path=entry.device,
                size_bytes=entry.size_sectors * disk.sector_bytes,
                sector_bytes=disk.sector_bytes,
                purpose=f"{wanted.id}/{entry.number}",
                part_uuid=entry.part_uuid,
                role=partition.role,
                disk=disk,
                lasting_name=f"PARTUUID={entry.part_uuid}",
            )
            self._place(device, partition.content)

    def _array(self, array: Array, index: int) -> None:
        members = self._members[array.id]
        uuid = identifier(self._seed, f"array {array.id}")
        planned = plan_array(array, index, uuid, [(one.path, one.size_bytes) for one in members])
        self.arrays.append(planned)
        sector_bytes = max(one.sector_bytes for one in members)
        device = _Device(
            path=planned.device,
            size_bytes=planned.size_bytes,
            sector_bytes=sector_bytes,
            purpose=f"array {array.id}",
            lasting_name=f"/dev/disk/by-id/md-uuid-{md_uuid(uuid)}",
        )
        self._place(device, array.content)

    def _group(self, group: VolumeGroup) -> None:
        physical = self._physical[group.name]
        sectors = {one.sector_bytes for one in physical}
        if len(sectors) > 1:
            raise PlanError(
                Cause.LAYOUT,
                f"the physical volumes of '{group.name}' have sectors of {' and '.join(map(str, sorted(sectors)))}"
                " bytes; LVM joins none that differ",
                hint="select disks of one sector size for the volume group",
            )
        (sector_bytes,) = sectors
        least = [self._bound(one.size, one.content, sector_bytes) for one in group.volumes]
        planned = plan_group(group, [(one.path, one.size_bytes) for one in physical], least)
        self.groups.append(planned)
        for volume, made in zip(group.volumes, planned.volumes, strict=True):
            size_bytes = made.extents * group.extent_mib * MIB
            purpose = f"{group.name}/{volume.name}"
            path = planned.device(made)
            self._place(_Device(path, size_bytes, sector_bytes, purpose, lasting_name=path), volume.content)

    def _place(self, device: _Device, content: Content) -> None:
        """Put `content` on a device."""
        match content:
            case ArrayMember(array=name):
                self._members[name].append(device)
            case PhysicalVolume(group=name):
                self._physical[name].append(device)
            case Luks():
                self._luks(device, content)
            case EspCopy():
                uuid = volume_id(self._seed, f"{device.purpose}/volume")
                volume = device.volume("vfat", uuid, label=content.label, role="esp-copy")
                self._add(volume, self._esp_need(), device)
            case Swap():
                uuid = identifier(self._seed, f"{device.purpose}/filesystem")
                sources = (content.source_uuid,) if content.source_uuid else ()
                volume = device.volume("swap", uuid, label=content.label, role="swap")
                self.volumes.append(msgspec.structs.replace(volume, source_uuids=sources))
            case Filesystem():
                need = self.need_of(content)
                self._add(self._filesystem(device, content, need), need, device)

    def _luks(self, device: _Device, content: Luks) -> None:
        if content.unlock.way == "random" and not device.lasting_name:
            raise PlanError(
                Cause.LAYOUT,
                f"{device.path} would be '{content.name}', with a new key at each boot: a whole disk has no name that"
                " stays when nothing lies on it",
                hint="give the disk a table, and the swap a partition",
            )
        uuid = "" if content.unlock.way == "random" else identifier(self._seed, f"{device.purpose}/luks")
        crypt = PlannedCrypt(
            name=content.name,
            backing=device.path,
            uuid=uuid,
            unlock=content.unlock,
            source=f"UUID={uuid}" if uuid else device.lasting_name,
            sector_bytes=device.sector_bytes,
            source_uuid=content.source_uuid,
            is_early=is_opened_early(self._layout, content),
        )
        self.crypts.append(crypt)
        if crypt.is_fresh:
            return
        inner = device.size_bytes - LUKS_HEADER_BYTES
        self._place(
            _Device(crypt.device, inner, device.sector_bytes, f"{device.purpose}/{content.name}"), content.content
        )

    def _filesystem(self, device: _Device, content: Filesystem, need: Contents) -> PlannedVolume:
        is_fat = content.kind == "vfat"
        uuid = (volume_id if is_fat else identifier)(
            self._seed, f"{device.purpose}/{'volume' if is_fat else 'filesystem'}"
        )
        sources = (content.source_uuid, need.source_uuid)
        made = device.volume(content.kind, uuid, label=content.label, role=device.role or role_of(content))
        return msgspec.structs.replace(
            made,
            mount=content.mount,
            options=self._options(device, content),
            subvolumes=content.subvolumes,
            source_uuids=tuple(dict.fromkeys(source for source in sources if source)),
        )

    def _options(self, device: _Device, content: Filesystem) -> str:
        """Return the mount options: the ESP holds what boots the machine, readable by root alone.

        One that has copies may be gone with its disk, and the machine must start without it (systemd.mount(5), nofail).
        """
        options = "umask=0077" if (content.kind, content.options) == ("vfat", "defaults") else content.options
        has_copies = any(isinstance(one, EspCopy) for _, one in self._layout.contents())
        if device.role == "esp" and has_copies and "nofail" not in options.split(","):
            return f"{options},nofail"
        return options

    def _add(self, volume: PlannedVolume, need: Contents, device: _Device) -> None:
        _check_fit(volume, need, device.disk)
        self.volumes.append(volume)

    def _bound(self, size: Size, content: Content, sector_bytes: int) -> int:
        """Return what `content` raises the minimum of `size` to; 0 for what does not grow."""
        if not size.weight:
            return 0
        least = self._least(content, sector_bytes)
        return min(least, size.max_bytes) if size.max_bytes else least

    def _least(self, content: Content, sector_bytes: int) -> int:
        """Return what `content` needs of a device that may grow; 0 where nothing says so."""
        match content:
            case Filesystem():
                return least_bytes(self.need_of(content), content.kind, sector_bytes)
            case EspCopy():
                return least_bytes(self._esp_need(), "vfat", sector_bytes)
            case Luks():
                return LUKS_HEADER_BYTES + self._least(content.content, sector_bytes)
            case ArrayMember(array=name):
                array = next(one for one in self._layout.arrays if one.id == name)
                members = sum(one == content for _, one in self._layout.contents())
                inner = self._least(array.content, sector_bytes)
                return least_member_bytes(array, inner, members) if inner else 0
            case PhysicalVolume(group=name):
                group = next(one for one in self._layout.groups if one.name == name)
                return self._least_physical(group, content, sector_bytes)
        return 0

    def _least_physical(self, group: VolumeGroup, content: PhysicalVolume, sector_bytes: int) -> int:
        """Return one physical volume's share of what its group needs."""
        shares = sum(one == content for _, one in self._layout.contents())
        extent = group.extent_mib * MIB
        bounds = [max(one.size.min_bytes, self._bound(one.size, one.content, sector_bytes)) for one in group.volumes]
        extents = sum(-(-bound // extent) for bound in bounds)
        return (-(-extents // shares) + 1) * extent + PV_HEADER_BYTES

    def _esp_need(self) -> Contents:
        esp = next(
            (
                one.content
                for disk in self._layout.disks
                for one in disk.partitions
                if one.role == "esp" and isinstance(one.content, Filesystem)
            ),
            None,
        )
        return self.need_of(esp) if esp else Contents(mount="", allocated_bytes=0, inodes=0)


def _check_fit(volume: PlannedVolume, need: Contents, disk: Disk | None) -> None:
    """Refuse a filesystem that cannot be made at this size, or that the image does not fit into."""
    size_bytes, sector_bytes = volume.size_bytes, volume.sector_bytes
    where = f"{volume.role} on {describe_disk(disk) if disk else volume.id}"
    if size_bytes < floor_bytes(volume.filesystem, sector_bytes):
        least = format_bytes(floor_bytes(volume.filesystem, sector_bytes))
        told = f"{volume.filesystem} needs {least}"
        hint = f"give it at least {least}"
        if volume.filesystem == "vfat":
            told = f"FAT32 at {sector_bytes}-byte sectors needs {format_bytes(fat32_minimum_bytes(sector_bytes))}"
            hint = "give the esp 512MiB, which serves every sector size"
        raise PlanError(Cause.DISK_TOO_SMALL, f"{where} is {format_bytes(size_bytes)}; {told}", hint=hint)
    if not fits(need, volume.filesystem, size_bytes, sector_bytes):
        takes = max(usable_bytes(volume.filesystem, size_bytes, sector_bytes, need.inodes), 0)
        least = format_bytes(least_bytes(need, volume.filesystem, sector_bytes))
        raise PlanError(
            Cause.DISK_TOO_SMALL,
            f"{where} is {format_bytes(size_bytes)} and takes {format_bytes(takes)}; the image puts"
            f" {format_bytes(need.allocated_bytes)} in {need.inodes} files at '{need.mount}'",
            hint=f"the partition needs {least}: take a larger disk or change the layout",
        )
