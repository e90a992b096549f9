"""Disks as a layout describes them: their tables, entry by entry, and which of several ESPs is the one.

What lies in a partition is `describing`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from cloner_core.describing import describe_disk
from cloner_core.detection.describing import Describing
from cloner_core.detection.parsing import Block
from cloner_core.detection.sizing import fixed, with_growing_partition
from cloner_core.facts import Disk, DiskPartition
from cloner_core.layout import Content, DiskLayout, EspCopy, Filesystem, Kept, Nothing, Partition, Selector, Size
from cloner_core.layout.containing import role_of
from cloner_core.layout.rules import is_partition_name
from cloner_core.layout.types import Role
from cloner_core.plan.tables import MBR_TYPES, TYPE_GUIDS

_ESP_TYPES: Final = (TYPE_GUIDS["esp"], f"0x{MBR_TYPES['esp']}")
_ESP_MOUNTS: Final = ("/boot/efi", "/efi", "/boot")  # where distributions mount it
_EXTENDED: Final = ("0x05", "0x0f", "0x85")
_TABLES: Final[dict[str, Literal["gpt", "mbr"]]] = {"gpt": "gpt", "dos": "mbr"}
_KEPT_SIZE: Final = Size(min_bytes=0)
_ANY: Final = Selector()


class Tabling:
    """Describes the tables of disks."""

    def __init__(self, describing: Describing, disks: Sequence[Disk], kept: frozenset[str]) -> None:
        """`disks` are those that the layout may take; partitions with a path in `kept` stay as they are."""
        self._describing = describing
        self._seen = describing.seen
        self._findings = describing.findings
        self._kept = kept
        self._esp = self._main_esp(disks)

    def disk(self, disk: Disk) -> DiskLayout | None:
        """Return how the layout describes `disk`, without id and selector; None when there is nothing on it."""
        if not disk.table:
            block = self._seen.whole(disk)
            if not block.filesystem and not block.children and not self._seen.mounted(block):
                self._findings.note(f"{describe_disk(disk)} is empty and is not in the layout")
                return None
            content = self._describing.content(block)
            return DiskLayout(id="", select=_ANY, table="none", content=content)
        table = _TABLES.get(disk.table)
        if table is None:
            self._findings.fault(disk.path, f"has a table '{disk.table}'", "a layout has gpt, mbr, or none")
            return None
        entries = self.entries(disk)
        if not entries:
            self._findings.note(f"{describe_disk(disk)} has no partitions and is not in the layout")
            return None
        partitions = [self._partition(disk, entry) for entry in entries]
        if [entry.number for entry in entries] != sorted(entry.number for entry in entries):
            self._findings.note(f"the partitions of {disk.path} are numbered anew on clones, in the order they lie in")
        return DiskLayout(id="", select=_ANY, table=table, partitions=with_growing_partition(partitions))

    def entries(self, disk: Disk) -> list[DiskPartition]:
        """Return the partitions of `disk` in the order they lie in, without what only contains others."""
        inside = (entry for entry in disk.partitions if entry.type not in _EXTENDED)
        return sorted(inside, key=lambda entry: entry.start_bytes)

    def _partition(self, disk: Disk, entry: DiskPartition) -> Partition:
        block = self._seen.partition(disk, entry)
        if block.path in self._kept:
            return self._kept_partition(block, entry)
        role: Role
        content: Content
        if entry.type == TYPE_GUIDS["bios-boot"]:
            role, content = "bios-boot", Nothing()
        elif block.filesystem == "vfat" and self._is_esp(block, entry):
            role, content = "esp", self._esp_content(block)
        else:
            content = self._describing.content(block)
            role = role_of(content)
            if entry.type in _ESP_TYPES and isinstance(content, Filesystem):
                told = f"{block.path} is another ESP, mounted at {content.mount}: it is described as a plain filesystem"
                self._findings.note(f"{told}; as 'esp-copy', and not mounted, Cloner keeps it in step with the first")
        return Partition(
            role=role,
            size=fixed(entry.size_bytes),
            content=content,
            label=self._label(disk, entry, role),
            is_logical=entry.is_logical,
            is_active=entry.is_active,
        )

    def _kept_partition(self, block: Block, entry: DiskPartition) -> Partition:
        place = next(iter(self._seen.mounted(block)), None)
        options = ",".join(one for one in place.options.split(",") if one != "nofail") if place else ""
        content = Kept(entry.number, place.mount if place else "", options or "defaults")
        return Partition(role="data", size=_KEPT_SIZE, content=content, is_logical=entry.is_logical)

    def _main_esp(self, disks: Sequence[Disk]) -> str:
        """Return the path of the ESP that the clone mounts; "" when there is none."""
        found = {}
        for disk in disks:
            for entry in self.entries(disk):
                block = self._seen.partition(disk, entry)
                if block.filesystem == "vfat" and block.path not in self._kept:
                    mounts = [place.mount for place in self._seen.mounted(block)]
                    if entry.type in _ESP_TYPES or set(mounts) & set(_ESP_MOUNTS[:2]):
                        found[block.path] = mounts
        self._has_copies = any(not mounts for mounts in found.values()) and len(found) > 1
        ranks = {mount: rank for rank, mount in enumerate(_ESP_MOUNTS)}
        ranked = sorted(found, key=lambda path: min((ranks.get(one, 3) for one in found[path]), default=4))
        if ranked and not found[ranked[0]]:
            self._findings.note(f"{ranked[0]} is taken for the ESP, though nothing mounts it; clones do, at /boot/efi")
        return ranked[0] if ranked else ""

    def _is_esp(self, block: Block, entry: DiskPartition) -> bool:
        is_copy = entry.type in _ESP_TYPES and not self._seen.mounted(block)
        return block.path == self._esp or is_copy

    def _esp_content(self, block: Block) -> Filesystem | EspCopy | Nothing:
        label = block.label.upper()
        if block.path != self._esp:
            return EspCopy(label=label)
        if not self._seen.mounted(block):
            return Filesystem(kind="vfat", mount="/boot/efi", label=label, source_uuid=block.uuid)
        content = self._describing.content(block)
        if not isinstance(content, Filesystem):
            return Nothing()
        if self._has_copies and content.options == "umask=0077,nofail":
            return msgspec.structs.replace(content, options="defaults")  # copies bring that by themselves
        return content

    def _label(self, disk: Disk, entry: DiskPartition, role: str) -> str:
        if disk.table != "gpt" or entry.name == role:
            return ""
        if not is_partition_name(entry.name):
            self._findings.note(f"the name '{entry.name}' of partition {entry.number} of {disk.path} is not kept")
            return ""
        return entry.name
