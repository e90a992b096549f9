"""A machine after a deploy, as its tools would tell of it: a plan rendered as what lsblk, mdadm, LVM print."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from cloner_core.detection import ArrayTold, BtrfsTold, Told
from cloner_core.facts import Disk, DiskPartition, Facts
from cloner_core.fstab import make_fstab
from cloner_core.identifiers import identifier
from cloner_core.layout import Filesystem, Layout, Luks, mounts_of
from cloner_core.plan import Contents, Plan
from cloner_core.plan.building import Building
from cloner_core.plan.values import PlannedCrypt, PlannedDisk, PlannedSwapFile, PlannedVolume
from cloner_core.selectors import select_disks
from cloner_core.sizes import KIB, MIB

SEED = "5eed" * 16


def built(facts: Facts, layout: Layout) -> Plan:
    """Return what would lie on the disks of a machine, whatever firmware it has and whether it can be unlocked."""
    mounts = [mount for _, content in layout.contents() for mount in mounts_of(content)]
    needs = {mount: Contents(mount=mount, allocated_bytes=0, inodes=0) for mount in mounts}
    building = Building(layout, select_disks(layout, facts.disks), needs, SEED)
    building.build(facts.arch)
    return Plan(
        node="node01",
        image="debian:1",
        version_digest="ab" * 32,
        layout=layout.name,
        disks=tuple(building.disks),
        steps=(),
        volumes=tuple(building.volumes),
        arrays=tuple(building.arrays),
        groups=tuple(building.groups),
        crypts=tuple(building.crypts),
        swapfiles=tuple(
            PlannedSwapFile(one.path, one.size_bytes, "ext4", identifier(SEED, one.path)) for one in layout.swapfiles
        ),
    )


def told_of(plan: Plan, facts: Facts, *, is_running: bool = True) -> Told:
    """Return what the tools of the machine say once `plan` was applied to it."""
    planned = {disk.disk.path: disk for disk in plan.disks}
    disks = tuple(_applied(disk, planned.get(disk.path)) for disk in facts.disks)
    world = _World(plan, is_running=is_running)
    return Told(
        disks=disks,
        lsblk=json.dumps({"blockdevices": [world.disk(disk) for disk in disks]}),
        blkid=blkid_of(world.contents),
        arrays={one.device: _array_told(plan, one.id) for one in plan.arrays},
        logical=_report("lv", list(_logical(plan))) if plan.groups else "",
        groups=_report("vg", list(_groups(plan))) if plan.groups else "",
        physical=_report("pv", list(_physical(plan))) if plan.groups else "",
        luks={crypt.backing: _luks_told(crypt) for crypt in plan.crypts if crypt.unlock.way != "random"},
        btrfs={one.uuid: _btrfs_told(one) for one in plan.volumes if one.filesystem == "btrfs"},
        mounts=_findmnt(plan),
        fstab=make_fstab(None, plan.entries).content,
        crypttab=crypttab_of(plan),
        swapfiles={one.path: one.size_bytes for one in plan.swapfiles},
    )


def _applied(disk: Disk, planned: PlannedDisk | None) -> Disk:
    if planned is None:
        return disk
    if planned.table == "none":
        return msgspec.structs.replace(disk, table="", partitions=(), is_mounted=True)
    entries = tuple(
        DiskPartition(
            number=one.number,
            start_bytes=one.start_sectors * disk.sector_bytes,
            size_bytes=one.size_sectors * disk.sector_bytes,
            type=f"0x{int(one.kind, 16):02x}" if planned.table == "mbr" else one.kind,
            part_uuid=one.part_uuid,
            name=one.name,
            is_logical=planned.table == "mbr" and one.number >= 5,
            is_active=one.is_active,
            attributes=one.attributes,
        )
        for one in planned.partitions
    )
    table = "dos" if planned.table == "mbr" else "gpt"
    return msgspec.structs.replace(disk, table=table, partitions=entries, is_mounted=True)


class _World:
    """Renders rows of lsblk, each with what lies on it."""

    def __init__(self, plan: Plan, *, is_running: bool) -> None:
        self.is_running = is_running
        self.contents: dict[str, dict[str, str]] = {}  # by path: what blkid prints
        self.volumes = {one.device: one for one in plan.volumes}
        self.crypts = {one.backing: one for one in plan.crypts}
        self.arrays = {member: one for one in plan.arrays for member in one.members}
        self.groups = {device: one for one in plan.groups for device in one.physical}

    def disk(self, disk: Disk) -> dict[str, Any]:
        between = "p" if disk.path[-1].isdigit() else ""
        if disk.table:
            row = self.row(disk.path, "disk", disk.size_bytes)
            row["children"] = [
                self.stack(f"{disk.path}{between}{one.number}", "part", one.size_bytes, one.part_uuid)
                for one in disk.partitions
            ]
            return row
        return self.stack(disk.path, "disk", disk.size_bytes)

    def stack(self, path: str, kind: str, size: int, part_uuid: str = "", name: str = "") -> dict[str, Any]:
        row = self.row(path, kind, size, name=name)
        told = self.contents.setdefault(path, {"PART_ENTRY_UUID": part_uuid})
        if volume := self.volumes.get(path):
            told |= {"TYPE": volume.filesystem, "UUID": volume.uuid, "LABEL": volume.label}
            return row
        if crypt := self.crypts.get(path):
            if crypt.unlock.way == "random":  # nothing lies on it, and it is open where the machine runs
                return row | {"children": [self.row(crypt.device, "crypt", size, name=crypt.name)] * self.is_running}
            above = self.stack(crypt.device, "crypt", size - 16 * MIB, name=crypt.name)
            told |= {"TYPE": "crypto_LUKS", "UUID": crypt.uuid}
            return row | {"children": [above]}
        if array := self.arrays.get(path):
            above = self.stack(array.device, array.level, array.size_bytes)
            told |= {"TYPE": "linux_raid_member", "UUID": array.uuid}
            return row | {"children": [above]}
        if group := self.groups.get(path):
            above_all = [
                self.stack(group.device(one), "lvm", one.extents * group.extent_mib * MIB) for one in group.volumes
            ]
            told |= {"TYPE": "LVM2_member", "UUID": "pv"}
            return row | {"children": above_all}
        return row

    @staticmethod
    def row(path: str, kind: str, size: int, *, name: str = "") -> dict[str, Any]:
        return {"path": path, "name": name or path.rpartition("/")[2], "type": kind, "size": size}


def blkid_of(contents: Mapping[str, Mapping[str, str]]) -> str:
    """Return what `blkid --probe --output export` prints; it leaves out devices on which it finds nothing."""
    told = {path: {name: value for name, value in one.items() if value} for path, one in contents.items()}
    return "\n".join(
        "".join(f"{name}={value.replace(' ', chr(92) + ' ')}\n" for name, value in {"DEVNAME": path, **one}.items())
        for path, one in told.items()
        if one
    )


def _array_told(plan: Plan, name: str) -> ArrayTold:
    one = next(array for array in plan.arrays if array.id == name)
    lines = [f"MD_LEVEL={one.level}", f"MD_DEVICES={len(one.members)}", f"MD_METADATA={one.metadata}"]
    lines += [f"MD_UUID={one.uuid}", f"MD_NAME=any:{one.id}"]
    for index, member in enumerate(one.members):
        key = f"MD_DEVICE_{member.removeprefix('/')}".replace("/", "_")
        lines += [f"{key}_ROLE={index}", f"{key}_DEV={member}"]
    layout = {"raid10": 0x102, "raid5": 2, "raid6": 2}.get(one.level, 0)
    return ArrayTold("\n".join(lines), one.chunk_kib * KIB, layout)


def _logical(plan: Plan) -> Iterator[Mapping[str, str]]:
    for group in plan.groups:
        for one in sorted(group.volumes, key=lambda volume: volume.name):
            size = str(one.extents * group.extent_mib * MIB)
            yield {
                "vg_name": group.name,
                "lv_name": one.name,
                "lv_size": size,
                "segtype": "linear",
                "origin": "",
                "lv_active": "active",
                "stripes": "1",
            }


def _groups(plan: Plan) -> Iterator[Mapping[str, str]]:
    for group in plan.groups:
        extent = group.extent_mib * MIB
        used = sum(one.extents for one in group.volumes) * extent
        total = used + _free(plan, group.name)
        yield {
            "vg_name": group.name,
            "vg_extent_size": str(extent),
            "vg_free": str(total - used),
            "vg_size": str(total),
            "vg_exported": "",
            "vg_missing_pv_count": "0",
        }


def _free(plan: Plan, name: str) -> int:
    """Return what the volumes of a group leave free, from the sizes of what carries it."""
    group = next(one for one in plan.groups if one.name == name)
    extent = group.extent_mib * MIB
    extents = sum((_size(plan, path) - MIB) // extent for path in group.physical)
    return max(extents - sum(one.extents for one in group.volumes), 0) * extent


def _size(plan: Plan, path: str) -> int:
    for disk in plan.disks:
        if disk.disk.path == path:
            return disk.disk.size_bytes
        for one in disk.partitions:
            if one.device == path:
                return one.size_sectors * disk.disk.sector_bytes
    for array in plan.arrays:
        if array.device == path:
            return array.size_bytes
    crypt = next(one for one in plan.crypts if one.device == path)
    return _size(plan, crypt.backing) - 16 * MIB


def _physical(plan: Plan) -> Iterator[Mapping[str, str]]:
    for group in plan.groups:
        for path in group.physical:
            yield {"pv_name": path, "vg_name": group.name}


def _report(name: str, rows: list[Mapping[str, str]]) -> str:
    return json.dumps({"report": [{name: rows}]})


def _luks_told(crypt: PlannedCrypt) -> str:
    if crypt.unlock.way != "tpm2":
        return json.dumps({"keyslots": {"0": {}}, "tokens": {}})
    if len(crypt.unlock.pcrs) % 2:  # both programs that bind to a TPM
        token: dict[str, Any] = {"type": "systemd-tpm2", "tpm2-pcrs": list(crypt.unlock.pcrs)}
    else:
        pin = {"hash": "sha256", "pcr_ids": ",".join(map(str, crypt.unlock.pcrs))}
        header = json.dumps({"alg": "dir", "clevis": {"pin": "tpm2", "tpm2": pin}})
        token = {"type": "clevis", "jwe": {"protected": urlsafe_b64encode(header.encode()).decode().rstrip("=")}}
    return json.dumps({"keyslots": {"1": {}}, "tokens": {"0": token}})


def crypttab_of(plan: Plan) -> str:
    """Return the crypttab(5) of a clone."""
    return "".join(
        f"{one.name} {_source(plan, one)} /dev/urandom swap\n"
        if one.unlock.way == "random"
        else f"{one.name} UUID={one.uuid} none luks\n"
        for one in plan.crypts
    )


def _source(plan: Plan, crypt: PlannedCrypt) -> str:
    """Return what names a device on which nothing lies."""
    found = (one.part_uuid for one in plan.partitions if one.device == crypt.backing)
    return next((f"PARTUUID={uuid}" for uuid in found), crypt.backing)


def _btrfs_told(volume: PlannedVolume) -> BtrfsTold:
    """List the subvolumes as btrfs does where the first of them is mounted: those inside it have paths from there."""
    lines = []
    ids = {one.name: 256 + at for at, one in enumerate(volume.subvolumes)}
    asked = volume.subvolumes[0].name if volume.subvolumes and not volume.mount else ""
    for name, number in ids.items():
        above = [other for other in ids if name.startswith(f"{other}/")]
        top = ids[max(above, key=len)] if above else 5
        lines.append(f"ID {number} gen 9 top level {top} path {name.removeprefix(f'{asked}/') if asked else name}")
    return BtrfsTold("\n".join(lines), default="ID 5 (FS_TREE)", asked=asked)


def _findmnt(plan: Plan) -> str:
    rows = [
        {
            "source": f"{one.device}[/{one.subvolume}]" if one.subvolume else one.device,
            "target": one.mount,
            "fstype": one.filesystem,
            "fsroot": f"/{one.subvolume}",
        }
        for one in plan.mounts
    ]
    return json.dumps({"filesystems": [*rows, {"source": "proc", "target": "/proc", "fstype": "proc", "fsroot": "/"}]})


def without_measure(layout: Layout) -> Layout:
    """Return `layout` without what a machine does not tell: names of disks, selectors, sizes, former identifiers."""

    def plain(content: Any) -> Any:
        match content:
            case Luks():
                return msgspec.structs.replace(content, content=plain(content.content), source_uuid="")
            case Filesystem():
                ordered = tuple(sorted(content.subvolumes, key=lambda one: one.name))
                return msgspec.structs.replace(content, source_uuid="", subvolumes=ordered)
            case msgspec.Struct() if hasattr(content, "source_uuid"):
                return msgspec.structs.replace(content, source_uuid="")
        return content

    size = next(one.size for disk in layout.disks for one in disk.partitions)
    return Layout(
        name=layout.name,
        disks=tuple(
            type(disk)(
                id=str(index),
                select=type(disk.select)(),
                table=disk.table,
                content=plain(disk.content),
                partitions=tuple(
                    msgspec.structs.replace(
                        one, size=size, content=plain(one.content), label="" if one.label == one.role else one.label
                    )
                    for one in disk.partitions
                ),
            )
            for index, disk in enumerate(layout.disks)
        ),
        arrays=tuple(
            msgspec.structs.replace(one, content=plain(one.content))
            for one in sorted(layout.arrays, key=lambda one: one.id)
        ),
        groups=tuple(
            msgspec.structs.replace(
                group,
                volumes=tuple(
                    msgspec.structs.replace(one, size=size, content=plain(one.content))
                    for one in sorted(group.volumes, key=lambda one: one.name)
                ),
            )
            for group in sorted(layout.groups, key=lambda one: one.name)
        ),
        swapfiles=tuple(sorted(layout.swapfiles, key=lambda one: one.path)),
    )
