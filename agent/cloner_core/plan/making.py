"""Making a plan: disks, places, identifiers, fit, and the steps in the order of a deploy.

The order is the design's: nothing is destroyed before everything that can be known is known, and the disk cannot
boot before commit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from cloner_core.describing import describe_disk
from cloner_core.facts import Disk, Facts, Firmware
from cloner_core.identifiers import identifier, volume_id
from cloner_core.layout import DiskLayout, Filesystem, Layout, Partition, Swap
from cloner_core.messages import BootPolicy, Cause, Task
from cloner_core.plan.filesystems import fat32_minimum_bytes, fits, least_bytes, usable_bytes
from cloner_core.plan.partitioning import place
from cloner_core.plan.sequence import steps_of
from cloner_core.plan.values import Contents, Plan, PlannedDisk, PlannedPartition
from cloner_core.refusals import PlanError
from cloner_core.selectors import select_disks
from cloner_core.sizes import MIB, format_bytes

_DEFAULT_BOOT = BootPolicy()
MIN_MEMORY_BYTES = 320 * MIB  # of MemTotal; a machine sold with 512 MiB shows about 450

# Discoverable Partitions Specification (UAPI.2); root by architecture
TYPE_GUIDS = {
    "esp": "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
    "swap": "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f",
    "data": "0fc63daf-8483-4772-8e79-3d69d8477de4",
    "root x86_64": "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
    "root aarch64": "b921b045-1df0-41c3-af44-4c6f280d3fae",
}


def plan_task(facts: Facts, task: Task, contents: Sequence[Contents]) -> Plan:
    """Return the plan of `task` on the machine of `facts`; see `make_plan`."""
    return make_plan(
        facts,
        task.layout,
        node=task.node,
        hostname=task.network.hostname,
        image=f"{task.version.image}:{task.version.number}",
        version_digest=task.version.digest,
        seed=task.seed,
        contents=contents,
        boot=task.boot,
        protected_serials=task.protected_serials,
    )


def make_plan(
    facts: Facts,
    layout: Layout,
    *,
    node: str,
    image: str,
    version_digest: str,
    seed: str,
    contents: Sequence[Contents],
    hostname: str = "",
    boot: BootPolicy = _DEFAULT_BOOT,
    protected_serials: Sequence[str] = (),
) -> Plan:
    """Return what a deploy of `image` ("debian:3") does to the machine of `facts`; the same arguments, the same plan.

    `seed` is 64 hex digits. `contents` say what must fit where; those of a folder that is no mount point of the
    layout count for the filesystem it lies on.
    Raises PlanError with its cause when machine, layout and version do not go together.
    """
    _check_machine(facts)
    chosen = select_disks(layout, facts.disks, protected_serials)
    needs = _needs(layout, contents)
    disks = tuple(_planned_disk(disk, chosen[disk.id], needs, seed, facts.arch) for disk in layout.disks)
    plan = Plan(
        node=node,
        image=image,
        version_digest=version_digest,
        layout=layout.name,
        disks=disks,
        steps=(),
        notes=tuple(_notes(facts, chosen)),
    )
    inodes = {mount: need.inodes for mount, need in needs.items()}
    steps = steps_of(plan, hostname=hostname or node, boot=boot, inodes=inodes)
    return msgspec.structs.replace(plan, steps=steps)


def partition_path(disk: str, number: int) -> str:
    """Return the device path of partition `number` (from 1) of `disk`.

    A "p" goes in between when the disk name ends in a digit (nvme0n1p1).
    Source: kernel, block/partitions/core.c, add_partition().
    """
    return f"{disk}{'p' if disk[-1].isdigit() else ''}{number}"


def _check_machine(facts: Facts) -> None:
    if facts.firmware is not Firmware.UEFI:
        raise PlanError(
            Cause.FIRMWARE,
            f"the machine was started by {facts.firmware.value.upper()} and the layout boots from an EFI partition",
            hint="switch the firmware to UEFI mode and netboot again",
        )
    if facts.memory_bytes < MIN_MEMORY_BYTES:
        raise PlanError(
            Cause.MEMORY,
            f"the machine has {format_bytes(facts.memory_bytes)} of memory; want {format_bytes(MIN_MEMORY_BYTES)}",
            hint="add memory; 512 MiB are enough",
        )


def _needs(layout: Layout, contents: Sequence[Contents]) -> dict[str, Contents]:
    """Sum `contents` by the layout's mount points; every mount point is present."""
    mounts = [
        partition.content.mount
        for disk in layout.disks
        for partition in disk.partitions
        if isinstance(partition.content, Filesystem)
    ]
    needs = {mount: Contents(mount=mount, allocated_bytes=0, inodes=0) for mount in mounts}
    for content in contents:
        home = max((m for m in mounts if is_beneath(content.mount, m)), key=len)
        before = needs[home]
        needs[home] = Contents(
            mount=home,
            allocated_bytes=before.allocated_bytes + content.allocated_bytes,
            inodes=before.inodes + content.inodes,
            source_uuid=content.source_uuid if content.mount == home else before.source_uuid,
        )
    return needs


def is_beneath(path: str, mount: str) -> bool:
    """Whether the absolute `path` is `mount` or lies beneath it."""
    return mount in ("/", path) or path.startswith(f"{mount}/")


def _planned_disk(wanted: DiskLayout, disk: Disk, needs: Mapping[str, Contents], seed: str, arch: str) -> PlannedDisk:
    least = [_least(partition, disk, needs) for partition in wanted.partitions]
    places = place(disk, [partition.size for partition in wanted.partitions], least)
    partitions = []
    for number, (partition, (start, size)) in enumerate(zip(wanted.partitions, places, strict=True), start=1):
        content, purpose = partition.content, f"{wanted.id}/{number}"
        is_fat = isinstance(content, Filesystem) and content.kind == "vfat"
        role = f"root {arch}" if partition.role == "root" else partition.role
        unformatted = PlannedPartition(
            number=number,
            device=partition_path(disk.path, number),
            role=partition.role,
            type_guid=TYPE_GUIDS.get(role, TYPE_GUIDS["data"]),
            part_uuid=identifier(seed, f"{purpose}/partition"),
            start_sectors=start,
            size_sectors=size,
            filesystem="swap",
            uuid=volume_id(seed, f"{purpose}/volume") if is_fat else identifier(seed, f"{purpose}/filesystem"),
            label=content.label,
            name=partition.label or partition.role,
            source_uuids=(content.source_uuid,) if content.source_uuid else (),
        )
        planned = unformatted if isinstance(content, Swap) else _formatted(unformatted, content, needs)
        _check_fit(planned, disk, needs)
        partitions.append(planned)
    table_guid = identifier(seed, f"{wanted.id}/table")
    return PlannedDisk(id=wanted.id, disk=disk, table_guid=table_guid, partitions=tuple(partitions))


def _least(partition: Partition, disk: Disk, needs: Mapping[str, Contents]) -> int:
    """Return what the content of `partition` raises its minimum to; 0 for a partition of fixed size."""
    content, size = partition.content, partition.size
    if isinstance(content, Swap) or not size.weight:
        return 0
    need = least_bytes(needs[content.mount], content.kind, disk.sector_bytes)
    return min(need, size.max_bytes) if size.max_bytes else need


def _formatted(partition: PlannedPartition, content: Filesystem, needs: Mapping[str, Contents]) -> PlannedPartition:
    sources = (*partition.source_uuids, needs[content.mount].source_uuid)
    return msgspec.structs.replace(
        partition,
        filesystem=content.kind,
        mount=content.mount,
        # the ESP holds what boots the machine: readable by root alone, as Debian and Fedora install it
        options="umask=0077" if (content.kind, content.options) == ("vfat", "defaults") else content.options,
        source_uuids=tuple(dict.fromkeys(source for source in sources if source)),
    )


def _check_fit(partition: PlannedPartition, disk: Disk, needs: Mapping[str, Contents]) -> None:
    size_bytes = partition.size_sectors * disk.sector_bytes
    where = f"{partition.role} on {describe_disk(disk)}"
    if partition.filesystem == "swap":
        return
    if partition.filesystem == "vfat" and size_bytes < fat32_minimum_bytes(disk.sector_bytes):
        raise PlanError(
            Cause.DISK_TOO_SMALL,
            f"{where} is {format_bytes(size_bytes)}; FAT32 at {disk.sector_bytes}-byte sectors needs"
            f" {format_bytes(fat32_minimum_bytes(disk.sector_bytes))}",
            hint="give the esp 512MiB, which serves every sector size",
        )
    need = needs[partition.mount]
    if not fits(need, partition.filesystem, size_bytes, disk.sector_bytes):
        takes = max(usable_bytes(partition.filesystem, size_bytes, disk.sector_bytes, need.inodes), 0)
        least = least_bytes(need, partition.filesystem, disk.sector_bytes)
        raise PlanError(
            Cause.DISK_TOO_SMALL,
            f"{where} is {format_bytes(size_bytes)} and takes {format_bytes(takes)}; the image puts"
            f" {format_bytes(need.allocated_bytes)} in {need.inodes} files at '{partition.mount}'",
            hint=f"the partition needs {format_bytes(least)}: take a larger disk or change the layout",
        )


def _notes(facts: Facts, chosen: Mapping[str, Disk]) -> list[str]:
    paths = {disk.path for disk in chosen.values()}
    notes = [
        f"{describe_disk(disk)} has no serial: the selector told it by model and size alone"
        for disk in chosen.values()
        if not disk.serial
    ]
    for disk in facts.disks:
        esps = [s.device for s in disk.signatures if s.kind == "vfat"]
        if disk.path not in paths and esps and disk.bus != "usb":
            notes.append(f"{describe_disk(disk)} keeps a FAT filesystem ({', '.join(esps)}); firmware may boot it")
    return notes
