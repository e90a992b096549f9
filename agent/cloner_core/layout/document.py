"""Layout documents: JSON as people write it (docs/layout.md), read into `Layout` and written back.

Reports every fault at once, each with its path. The rules that span fields are in `rules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import msgspec

from cloner_core.decoding import UNREADABLE
from cloner_core.errors import InvalidError
from cloner_core.layout.containing import content_document, read_content, role_of
from cloner_core.layout.reading import Reader, join
from cloner_core.layout.rules import layout_faults
from cloner_core.layout.selecting import read_selector, selector_document
from cloner_core.layout.types import (
    Array,
    Content,
    DiskLayout,
    Filesystem,
    Kept,
    Layout,
    LogicalVolume,
    Luks,
    Partition,
    PhysicalVolume,
    Role,
    Selector,
    Size,
    Stacked,
    Swap,
    SwapFile,
    VolumeGroup,
)
from cloner_core.sizes import MIB, document_bytes

MAX_DOCUMENT_BYTES = 1 << 20
REST = "rest"
ROLES = ("esp", "bios-boot", "swap", "root", "raid", "lvm", "luks", "data")
TABLES = ("gpt", "mbr", "none")
METADATA = ("1.0", "1.2")
_REST_SIZE = Size(min_bytes=MIB, weight=1)
_KEPT_SIZE = Size(min_bytes=0)
MAX_WEIGHT = 1000


def parse_layout(text: bytes | str) -> Layout:
    """Return the layout that the JSON document `text` describes.

    Raises InvalidError naming every fault with its path when the document cannot be used.
    """
    if len(text) > MAX_DOCUMENT_BYTES:
        raise InvalidError(f"the layout has {len(text)} bytes, more than {MAX_DOCUMENT_BYTES}")
    try:
        raw = msgspec.json.decode(text)
    except UNREADABLE as error:
        raise InvalidError("the layout is not JSON", faults=[str(error)], hint="see docs/layout.md") from error
    reader = _Reader()
    layout = reader.layout(raw)
    faults = [*reader.faults, *layout_faults(layout, reader.bad)]
    if faults:
        raise InvalidError(f"the layout has {len(faults)} faults", faults=faults, hint="see docs/layout.md")
    return layout


def layout_document(layout: Layout) -> dict[str, Any]:
    """Return `layout` as the document that `parse_layout` reads back as an equal value."""
    written: dict[str, Any] = {"name": layout.name, "disks": [_disk_document(disk) for disk in layout.disks]}
    if layout.arrays:
        written["arrays"] = [_array_document(array) for array in layout.arrays]
    if layout.groups:
        written["groups"] = [_group_document(group) for group in layout.groups]
    if layout.swapfiles:
        written["swapfiles"] = [{"path": one.path, "size": document_bytes(one.size_bytes)} for one in layout.swapfiles]
    if layout.untouched:
        written["untouched"] = [selector_document(select) for select in layout.untouched]
    return written


def _disk_document(disk: DiskLayout) -> dict[str, Any]:
    written: dict[str, Any] = {"id": disk.id, "select": selector_document(disk.select)}
    if disk.table != "gpt":
        written["table"] = disk.table
    if disk.content is not None:
        return written | {"content": content_document(disk.content)}
    return written | {"partitions": [_partition_document(partition) for partition in disk.partitions]}


def _partition_document(partition: Partition) -> dict[str, Any]:
    document: dict[str, Any] = {"role": partition.role}
    if not isinstance(partition.content, Kept):
        document["size"] = _size_document(partition.size)
    document["content"] = content_document(partition.content)
    if partition.label:
        document["label"] = partition.label
    if partition.is_logical:
        document["logical"] = True
    if partition.is_active:
        document["active"] = True
    return document


def _size_document(size: Size) -> Any:
    if size == _REST_SIZE:
        return REST
    if size.max_bytes == size.min_bytes and not size.weight:
        return document_bytes(size.min_bytes)
    written: dict[str, Any] = {"min": document_bytes(size.min_bytes)}
    if size.max_bytes:
        written["max"] = document_bytes(size.max_bytes)
    if size.weight:
        written["weight"] = size.weight
    return written


def _array_document(array: Array) -> dict[str, Any]:
    written: dict[str, Any] = {"id": array.id, "level": array.level}
    if array.metadata != "1.2":
        written["metadata"] = array.metadata
    if array.chunk_kib != 512:
        written["chunk_kib"] = array.chunk_kib
    return written | {"content": content_document(array.content)}


def _group_document(group: VolumeGroup) -> dict[str, Any]:
    written: dict[str, Any] = {"name": group.name}
    if group.extent_mib != 4:
        written["extent_mib"] = group.extent_mib
    volumes = [
        {"name": one.name, "size": _size_document(one.size), "content": content_document(one.content)}
        for one in group.volumes
    ]
    return written | {"volumes": volumes}


class _Reader(Reader):
    """Reads the parts of a layout."""

    def layout(self, raw: object) -> Layout:
        optional = ("format", "arrays", "groups", "swapfiles", "untouched")
        fields = self.fields(raw, "", required=("name", "disks"), optional=optional)
        if fields.get("format", 1) != 1:
            self.fault("format", f"{fields['format']!r} is not a format this version knows; want 1")
        return Layout(
            name=self.text(fields, "name", ""),
            disks=self.items(fields, "disks", "", self.disk),
            arrays=self.items(fields, "arrays", "", self.array, is_needed=False),
            groups=self.items(fields, "groups", "", self.group, is_needed=False),
            swapfiles=self.items(fields, "swapfiles", "", self.swapfile, is_needed=False),
            untouched=self.items(fields, "untouched", "", self.selector, is_needed=False),
        )

    def disk(self, raw: object, path: str) -> DiskLayout:
        is_bare = isinstance(raw, dict) and raw.get("table") == "none"
        inside = "content" if is_bare else "partitions"
        fields = self.fields(raw, path, required=("id", inside), optional=("select", "table"))
        table = self.choice(fields, "table", path, TABLES, stand_in="gpt", default="gpt")
        content = (
            read_content(self, fields["content"], join(path, "content")) if is_bare and "content" in fields else None
        )
        partitions = () if is_bare else self.items(fields, "partitions", path, self.partition)
        self.one_rest(partitions, fields, "partitions", path)
        return DiskLayout(
            id=self.text(fields, "id", path),
            select=self.selector(fields.get("select", {}), join(path, "select")),
            partitions=partitions,
            table=cast(Literal["gpt", "mbr", "none"], table),
            content=content,
        )

    def content(self, fields: Mapping[str, Any], path: str) -> Content:
        """Read the content of what is at `path`; a missing one was noted by `fields`."""
        where = join(path, "content")
        if "content" in fields:
            return read_content(self, fields["content"], where)
        self.bad.add(where)
        return Swap()

    def one_rest(self, items: tuple[Any, ...], fields: Mapping[str, Any], name: str, path: str) -> None:
        rests = [raw for raw in (fields[name] if items else ()) if isinstance(raw, dict) and raw.get("size") == REST]
        if items and len(rests) > 1:
            self.fault(join(path, name), f"{len(rests)} {name} take the rest; give them {{min, weight}} instead")

    def selector(self, raw: object, path: str) -> Selector:
        return read_selector(self, raw, path)

    def partition(self, raw: object, path: str) -> Partition:
        is_kept = _type_in(raw) == "kept"
        required = ("content",) if is_kept else ("size", "content")
        optional = ("role", "label", "logical", "active", "is_logical", "is_active", *(("size",) if is_kept else ()))
        fields = self.fields(raw, path, required=required, optional=optional)
        content = self.content(fields, path)
        role = role_of(content)
        if "role" in fields:
            role = cast(Role, self.choice(fields, "role", path, ROLES, stand_in=_likely_role(content)))
        return Partition(
            role=role,
            size=_KEPT_SIZE if is_kept else self.size_of(fields, path),
            content=content,
            label=self.text(fields, "label", path, default=""),
            is_logical=self.flag(fields, "logical", path) or self.flag(fields, "is_logical", path),
            is_active=self.flag(fields, "active", path) or self.flag(fields, "is_active", path),
        )

    def array(self, raw: object, path: str) -> Array:
        required = ("id", "level", "content")
        fields = self.fields(raw, path, required=required, optional=("metadata", "chunk_kib"))
        levels = ("raid0", "raid1", "raid5", "raid6", "raid10")
        level = self.choice(fields, "level", path, levels, stand_in="raid1")
        metadata = self.choice(fields, "metadata", path, METADATA, default="1.2")
        return Array(
            id=self.text(fields, "id", path),
            level=cast(Literal["raid0", "raid1", "raid5", "raid6", "raid10"], level),
            content=self.stacked(fields, path),
            metadata=cast(Literal["1.0", "1.2"], metadata),
            chunk_kib=self.count(fields, "chunk_kib", path, least=4, most=1 << 20, default=512),
        )

    def group(self, raw: object, path: str) -> VolumeGroup:
        fields = self.fields(raw, path, required=("name", "volumes"), optional=("extent_mib",))
        volumes = self.items(fields, "volumes", path, self.volume)
        self.one_rest(volumes, fields, "volumes", path)
        return VolumeGroup(
            name=self.text(fields, "name", path),
            volumes=volumes,
            extent_mib=self.count(fields, "extent_mib", path, least=1, most=1024, default=4),
        )

    def volume(self, raw: object, path: str) -> LogicalVolume:
        fields = self.fields(raw, path, required=("name", "size", "content"))
        content = self.stacked(fields, path)
        if isinstance(content, PhysicalVolume):
            self.fault(f"{path}.content.type", "a logical volume holds a filesystem, swap or luks")
            self.bad.add(f"{path}.content")
            content = Swap()
        return LogicalVolume(name=self.text(fields, "name", path), size=self.size_of(fields, path), content=content)

    def stacked(self, fields: Mapping[str, Any], path: str) -> Stacked:
        """Read what an array or a logical volume carries."""
        where = join(path, "content")
        if "content" not in fields:
            self.bad.add(where)
            return Swap()
        content = read_content(self, fields["content"], where)
        if isinstance(content, Filesystem | Swap | PhysicalVolume | Luks):
            return content
        self.fault(f"{where}.type", "what lies on an array or a volume is a filesystem, swap, lvm or luks")
        self.bad.add(where)
        return Swap()

    def swapfile(self, raw: object, path: str) -> SwapFile:
        fields = self.fields(raw, path, required=("path",), optional=("size", "size_bytes"))
        if "size" not in fields and "size_bytes" not in fields:
            self.fault(join(path, "size"), "is missing")
            self.bad.add(join(path, "size"))
        return SwapFile(path=self.text(fields, "path", path), size_bytes=self.bytes_of(fields, "size", path))

    def size_of(self, fields: Mapping[str, Any], path: str) -> Size:
        where = join(path, "size")
        if "size" in fields:
            return self.size(fields["size"], where)
        self.bad.add(where)
        return _REST_SIZE

    def size(self, raw: object, path: str) -> Size:
        if raw == REST:
            return _REST_SIZE
        if not isinstance(raw, dict):
            value = self.byte_count(raw, path, what=f"{REST} (partitions) ")
            return Size(min_bytes=value, max_bytes=value)
        fields = self.fields(raw, path, optional=("min", "max", "weight", "min_bytes", "max_bytes"))
        if "min" not in fields and "min_bytes" not in fields:
            self.fault(path, 'needs "min"')
            self.bad.add(path)
        least, most = self.bytes_of(fields, "min", path), self.bytes_of(fields, "max", path)
        if self.bad & {f"{path}.min", f"{path}.max", f"{path}.min_bytes", f"{path}.max_bytes"}:
            self.bad.add(path)
        weight = self.count(fields, "weight", path, least=0, most=MAX_WEIGHT, default=0)
        return Size(min_bytes=least, max_bytes=most, weight=weight)


def _type_in(raw: object) -> object:
    content = raw.get("content") if isinstance(raw, dict) else None
    return content.get("type") if isinstance(content, dict) else None


def _likely_role(content: Content) -> str:
    """Return the role that fits `content`, so that a misspelt role does not bring faults of its own."""
    is_fat = isinstance(content, Filesystem) and content.kind == "vfat"
    return "esp" if is_fat else role_of(content)
