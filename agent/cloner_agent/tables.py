"""Reads the partition table of a disk, as sfdisk tells it.

Must not write to a device.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloner_agent.host import MISSING_STATUS, Runner, ToolError
from cloner_core.facts import MAX_PARTITIONS, DiskPartition

_TOOL_S = 60.0
_FIRST_LOGICAL = 5  # the kernel numbers what lies in an extended partition from here: block/partitions/msdos.c


@dataclass(frozen=True, slots=True)
class Table:
    """A partition table: what `Disk` tells of it."""

    kind: str = ""
    id: str = ""
    partitions: tuple[DiskPartition, ...] = ()

    def part_uuids(self, disk: str) -> dict[str, str]:
        """Return PARTUUID by device path."""
        between = "p" if disk[-1].isdigit() else ""
        return {f"{disk}{between}{entry.number}": entry.part_uuid for entry in self.partitions}


def read_table(run: Runner, disk: str) -> Table:
    """Return the partition table of `disk` ("/dev/sda"); an empty one where sfdisk finds none.

    Raises ToolError where there is no sfdisk: without it a disk would seem to have no partitions.
    """
    try:
        listed = run(("sfdisk", "--json", disk), timeout_s=_TOOL_S).stdout
    except ToolError as error:
        if error.status == MISSING_STATUS:
            raise
        return Table()
    told = json.loads(listed or "{}", strict=False).get("partitiontable", {})
    kind = told.get("label", "")
    table_id = told.get("id", "").lower().removeprefix("0x")
    entries = (_entry(entry, disk, table_id, told) for entry in told.get("partitions", []))
    return Table(kind, table_id, tuple(entry for entry in entries if entry)[:MAX_PARTITIONS])


def _entry(entry: Mapping[str, Any], disk: str, table_id: str, table: Mapping[str, Any]) -> DiskPartition | None:
    found = re.fullmatch(r"p?([1-9][0-9]{0,4})", entry["node"].removeprefix(disk))
    if not found:
        return None
    number = int(found[1])
    is_dos = table.get("label") == "dos"
    unit = table.get("sectorsize", 512)
    return DiskPartition(
        number=number,
        start_bytes=entry.get("start", 0) * unit,
        size_bytes=entry.get("size", 0) * unit,
        type=f"0x{int(entry['type'], 16):02x}" if is_dos else entry.get("type", "").lower(),
        # sfdisk names no PARTUUID with an MBR; the kernel makes it so (block/partitions/msdos.c, set_info).
        part_uuid=f"{table_id:>08}-{number:02x}" if is_dos else entry.get("uuid", "").lower(),
        name=entry.get("name", ""),
        is_logical=is_dos and number >= _FIRST_LOGICAL,
        is_active=is_dos and bool(entry.get("bootable")),
        attributes=entry.get("attrs", ""),
    )
