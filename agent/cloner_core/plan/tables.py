"""Partition tables: numbers, types and identifiers of the entries, and the script that sfdisk writes them from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from cloner_core.facts import Disk
from cloner_core.identifiers import identifier
from cloner_core.layout import DiskLayout, Kept, Luks, Partition
from cloner_core.plan.keeping import kept_entry
from cloner_core.plan.values import PlannedDisk, PlannedPartition, partition_path
from cloner_core.sizes import MIB

# Discoverable Partitions Specification (UAPI.2) and UEFI 2.10 §5.3.3; root by architecture
TYPE_GUIDS: Final = {
    "esp": "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
    "bios-boot": "21686148-6449-6e6f-744e-656564454649",
    "swap": "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f",
    "data": "0fc63daf-8483-4772-8e79-3d69d8477de4",
    "raid": "a19d880f-05fc-4d3b-a006-743f0f84911e",
    "lvm": "e6d6d379-f507-44c2-a23c-238f2a3df928",
    "luks": "ca7d7ccb-63ed-4c53-861c-1742536059cc",
    "root x86_64": "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
    "root aarch64": "b921b045-1df0-41c3-af44-4c6f280d3fae",
}
MBR_TYPES: Final = {"esp": "ef", "swap": "82", "raid": "fd", "lvm": "8e", "luks": "e8"}
_MBR_LINUX, _MBR_EXTENDED = "83", "f"
_FIRST_LOGICAL = 5


def table_of(wanted: DiskLayout, disk: Disk, places: Sequence[tuple[int, int]], seed: str, arch: str) -> PlannedDisk:
    """Return the new table of `disk`; `places` are start and size in sectors of each partition of the layout."""
    if wanted.table == "none":
        return PlannedDisk(id=wanted.id, disk=disk, table_guid="", partitions=(), table="none")
    guid = identifier(seed, f"{wanted.id}/table")
    table_id = f"0x{guid[:8]}" if wanted.table == "mbr" else guid
    entries: list[PlannedPartition] = []
    numbers, extended = partition_numbers(wanted)
    has_active = any(one.is_active for one in wanted.partitions)
    for number, partition, (start, size) in zip(numbers, wanted.partitions, places, strict=True):
        if isinstance(partition.content, Kept):
            kept = kept_entry(partition.content, disk, (start, size))
            # one partition at most is active: the layout's word goes before what is there
            entries.append(msgspec.structs.replace(kept, is_active=partition.is_active) if has_active else kept)
            continue
        if partition.is_logical and number == _FIRST_LOGICAL:
            entries.append(_extended(wanted, disk, places, table_id, extended))
        entries.append(
            PlannedPartition(
                number=number,
                device=partition_path(disk.path, number),
                role=partition.role,
                kind=_kind(partition, wanted.table, arch),
                part_uuid=_part_uuid(table_id, number)
                if wanted.table == "mbr"
                else identifier(seed, f"{wanted.id}/{number}/partition"),
                start_sectors=start,
                size_sectors=size,
                name="" if wanted.table == "mbr" else partition.label or partition.role,
                is_active=partition.is_active,
            )
        )
    return PlannedDisk(id=wanted.id, disk=disk, table_guid=table_id, partitions=tuple(entries), table=wanted.table)


def partition_numbers(wanted: DiskLayout) -> tuple[list[int], int]:
    """Return the number of each partition, and that of the extended one (0: none is needed).

    In order, around the numbers that are kept; logical ones from 5.
    """
    taken = {one.content.number for one in wanted.partitions if isinstance(one.content, Kept)}
    free = iter(number for number in range(1, 1 << 10) if number not in taken)
    numbers: list[int] = []
    extended, logical = 0, _FIRST_LOGICAL
    for one in wanted.partitions:
        if isinstance(one.content, Kept):
            numbers.append(one.content.number)
        elif one.is_logical:
            extended = extended or next(free)  # it comes where its first one does
            numbers.append(logical)
            logical += 1
        else:
            numbers.append(next(free))
    return numbers, extended


def _extended(
    wanted: DiskLayout, disk: Disk, places: Sequence[tuple[int, int]], table_id: str, number: int
) -> PlannedPartition:
    """Return the container of the logical partitions: from the record before the first to the end of the last."""
    inside = [place for one, place in zip(wanted.partitions, places, strict=True) if one.is_logical]
    start = inside[0][0] - MIB // disk.sector_bytes
    return PlannedPartition(
        number=number,
        device=partition_path(disk.path, number),
        role="extended",
        kind=_MBR_EXTENDED,
        part_uuid=_part_uuid(table_id, number),
        start_sectors=start,
        size_sectors=sum(inside[-1]) - start,
    )


def _part_uuid(table_id: str, number: int) -> str:
    """Return what the kernel calls a partition of an MBR (block/partitions/msdos.c)."""
    return f"{table_id.removeprefix('0x')}-{number:02x}"


def _kind(partition: Partition, table: str, arch: str) -> str:
    if table == "mbr":
        return MBR_TYPES.get(partition.role, _MBR_LINUX)
    role = f"root {arch}" if partition.role == "root" and not isinstance(partition.content, Luks) else partition.role
    return TYPE_GUIDS.get(role, TYPE_GUIDS["data"])


def _quoted(name: str) -> str:
    """Return `name` as sfdisk writes and reads it: unhexmangle_string() of util-linux, lib/mangle.c."""
    return '"' + re.sub(r'["\\\x00-\x1f]', lambda found: f"\\x{ord(found[0]):02x}", name) + '"'


def sfdisk_script(planned: PlannedDisk) -> str:
    """Return the input of sfdisk(8) for the new table; places are in logical sectors."""
    label = "dos" if planned.table == "mbr" else "gpt"
    table_id = planned.table_guid if planned.table == "mbr" else planned.table_guid.upper()
    lines = [f"label: {label}", f"label-id: {table_id}", "unit: sectors"]
    if planned.table != "mbr":
        # By itself sfdisk begins at 1 MiB, or at the optimal I/O size of the disk where that is more, and refuses what
        # lies before: topology_get_first_lba() of util-linux, libfdisk/src/alignment.c.
        starts = (partition.start_sectors for partition in planned.partitions)
        lines.append(f"first-lba: {min((MIB // planned.disk.sector_bytes, *starts))}")
    lines.append("")
    for partition in sorted(planned.partitions, key=lambda one: one.number):
        fields = {"start": str(partition.start_sectors), "size": str(partition.size_sectors)}
        if planned.table == "mbr":
            fields["type"] = partition.kind
        else:
            fields |= {
                "type": partition.kind.upper(),
                "uuid": partition.part_uuid.upper(),
                "name": _quoted(partition.name),
            }
            fields |= {"attrs": f'"{partition.attributes}"'} if partition.attributes else {}
        text = ", ".join(f"{key}={value}" for key, value in fields.items())
        # sfdisk numbers in order by itself; the name of the device says another number
        place = f"{partition.device} : " if planned.table == "mbr" or planned.is_kept else ""
        lines.append(f"{place}{text}{', bootable' if partition.is_active else ''}")
    return "\n".join(lines) + "\n"
