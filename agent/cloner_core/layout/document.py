"""Layout documents: JSON as people write it (docs/layout.md), read into `Layout` and written back.

Reports every fault at once, each with its path. The rules that span fields are in `rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar, cast

import msgspec

from cloner_core.decoding import UNREADABLE
from cloner_core.errors import InvalidError
from cloner_core.layout.rules import layout_faults
from cloner_core.layout.types import DiskLayout, Filesystem, Layout, Partition, Selector, Size, Swap
from cloner_core.sizes import MAX_BYTES, MIB, document_bytes, parse_bytes

MAX_DOCUMENT_BYTES = 1 << 20
MAX_ITEMS = 128
REST = "rest"
_ROLES = ("esp", "swap", "root", "data")
_T = TypeVar("_T")
_REST_SIZE = Size(min_bytes=MIB, weight=1)


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
    return {
        "name": layout.name,
        "disks": [
            {
                "id": disk.id,
                "select": _selector_document(disk.select),
                "partitions": [_partition_document(partition) for partition in disk.partitions],
            }
            for disk in layout.disks
        ],
    }


def _selector_document(select: Selector) -> dict[str, str]:
    pairs = {
        "serial": select.serial,
        "model": select.model,
        "size_min": document_bytes(select.size_min_bytes) if select.size_min_bytes else "",
        "size_max": document_bytes(select.size_max_bytes) if select.size_max_bytes else "",
    }
    return {key: value for key, value in pairs.items() if value}


def _partition_document(partition: Partition) -> dict[str, Any]:
    size = partition.size
    written: Any
    if size == _REST_SIZE:
        written = REST
    elif size.max_bytes == size.min_bytes and not size.weight:
        written = document_bytes(size.min_bytes)
    else:
        written = {"min": document_bytes(size.min_bytes)}
        if size.max_bytes:
            written["max"] = document_bytes(size.max_bytes)
        if size.weight:
            written["weight"] = size.weight
    document = {"role": partition.role, "size": written, "content": msgspec.to_builtins(partition.content)}
    if partition.label:
        document["label"] = partition.label
    return document


class _Reader:
    """Walks a decoded document; a bad value is noted, marked and replaced, so that the walk goes on."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.bad: set[str] = set()  # paths whose values are stand-ins: rules must not judge them

    def layout(self, raw: object) -> Layout:
        fields = self.fields(raw, "", required=("name", "disks"), optional=("format",))
        if fields.get("format", 1) != 1:
            self.fault("format", f"{fields['format']!r} is not a format this version knows; want 1")
        disks = self.items(fields, "disks", "", self.disk)
        return Layout(name=self.text(fields, "name", ""), disks=tuple(disks))

    def disk(self, raw: object, path: str) -> DiskLayout:
        fields = self.fields(raw, path, required=("id", "partitions"), optional=("select", "table"))
        if fields.get("table", "gpt") != "gpt":
            self.fault(f"{path}.table", f'{fields["table"]!r} is not a partition table we make; want "gpt"')
        partitions = self.items(fields, "partitions", path, self.partition)
        rests = [index for index, part in enumerate(partitions) if self.is_rest(fields, index) and part]
        if len(rests) > 1:
            self.fault(
                f"{path}.partitions", f"{len(rests)} partitions take the rest; give them {{min, weight}} instead"
            )
        return DiskLayout(
            id=self.text(fields, "id", path),
            select=self.selector(fields.get("select", {}), f"{path}.select"),
            partitions=tuple(partitions),
        )

    @staticmethod
    def is_rest(fields: Mapping[str, Any], index: int) -> bool:
        raw = fields["partitions"][index]
        return isinstance(raw, dict) and raw.get("size") == REST

    def selector(self, raw: object, path: str) -> Selector:
        fields = self.fields(
            raw, path, optional=("serial", "model", "size_min", "size_max", "size_min_bytes", "size_max_bytes")
        )
        return Selector(
            serial=self.text(fields, "serial", path, default=""),
            model=self.text(fields, "model", path, default=""),
            size_min_bytes=self.bytes_of(fields, "size_min", path),
            size_max_bytes=self.bytes_of(fields, "size_max", path),
        )

    def partition(self, raw: object, path: str) -> Partition:
        fields = self.fields(raw, path, required=("role", "size", "content"), optional=("label",))
        role = self.choice(fields, "role", path, _ROLES, stand_in=_likely_role(fields.get("content")))
        return Partition(
            role=cast(Literal["esp", "swap", "root", "data"], role),
            size=self.size(fields["size"], f"{path}.size") if "size" in fields else self.stand_in_size(path),
            content=self.content(fields.get("content", {}), f"{path}.content") if "content" in fields else Swap(),
            label=self.text(fields, "label", path, default=""),
        )

    def stand_in_size(self, path: str) -> Size:
        self.bad.add(f"{path}.size")
        return _REST_SIZE

    def size(self, raw: object, path: str) -> Size:
        if raw == REST:
            return _REST_SIZE
        if isinstance(raw, dict):
            fields = self.fields(raw, path, optional=("min", "max", "weight", "min_bytes", "max_bytes"))
            if "min" not in fields and "min_bytes" not in fields:
                self.fault(path, 'needs "min"')
                self.bad.add(path)
            weight = fields.get("weight", 0)
            if not _is_count(weight) or weight > 1000:
                self.fault(f"{path}.weight", f"{weight!r} is not a whole number from 0 to 1000")
                weight = 0
            least, most = self.bytes_of(fields, "min", path), self.bytes_of(fields, "max", path)
            if self.bad & {f"{path}.min", f"{path}.max", f"{path}.min_bytes", f"{path}.max_bytes"}:
                self.bad.add(path)
            return Size(min_bytes=least, max_bytes=most, weight=weight)
        value = self.byte_count(raw, path)
        return Size(min_bytes=value, max_bytes=value)

    def content(self, raw: object, path: str) -> Filesystem | Swap:
        kind = raw.get("type") if isinstance(raw, dict) else None
        if kind == "swap":
            fields = self.fields(raw, path, optional=("type", "label", "source_uuid"))
            return Swap(
                label=self.text(fields, "label", path, default=""),
                source_uuid=self.text(fields, "source_uuid", path, default=""),
            )
        if kind != "filesystem":
            self.fault(f"{path}.type", f'{kind!r} is neither "filesystem" nor "swap"')
            self.bad.add(path)
            return Swap()
        fields = self.fields(
            raw, path, required=("kind", "mount"), optional=("type", "label", "options", "source_uuid")
        )
        return Filesystem(
            kind=cast(Literal["ext4", "vfat"], self.choice(fields, "kind", path, ("ext4", "vfat"))),
            mount=self.text(fields, "mount", path),
            label=self.text(fields, "label", path, default=""),
            options=self.text(fields, "options", path, default="defaults"),
            source_uuid=self.text(fields, "source_uuid", path, default=""),
        )

    def fields(
        self, raw: object, path: str, *, required: Iterable[str] = (), optional: Iterable[str] = ()
    ) -> dict[str, Any]:
        if not isinstance(raw, dict):
            self.fault(path or "layout", f"is {_kind(raw)}; want an object")
            self.bad.update(_join(path, name) for name in required)
            return {}
        known = (*required, *optional)
        for name in raw:
            if name not in known:
                self.fault(_join(path, str(name)), f"unknown field; known are {', '.join(known)}")
        for name in required:
            if name not in raw:
                self.fault(_join(path, name), "is missing")
        return raw

    def items(self, fields: Mapping[str, Any], name: str, path: str, read: Callable[[object, str], _T]) -> list[_T]:
        where = _join(path, name)
        raw = fields.get(name, [])
        if not isinstance(raw, list) or len(raw) > MAX_ITEMS:
            self.fault(where, f"is {_kind(raw)}; want a list of at most {MAX_ITEMS}")
            raw = []
        elif name in fields and not raw:
            self.fault(where, "is empty")
        if not raw:
            self.bad.add(where)
        return [read(item, f"{where}[{index}]") for index, item in enumerate(raw)]

    def text(self, fields: Mapping[str, Any], name: str, path: str, *, default: str | None = None) -> str:
        value = fields.get(name, default)
        if isinstance(value, str):
            return value
        self.bad.add(_join(path, name))
        if name in fields:
            self.fault(_join(path, name), f"is {_kind(value)}; want text")
        return ""

    def choice(
        self, fields: Mapping[str, Any], name: str, path: str, known: tuple[str, ...], *, stand_in: str = ""
    ) -> str:
        value = fields.get(name)
        if value in known:
            return cast(str, value)
        self.bad.add(_join(path, name))
        if name in fields:
            self.fault(_join(path, name), f"{value!r} is not one of {', '.join(known)}")
        return stand_in or known[-1]

    def bytes_of(self, fields: Mapping[str, Any], name: str, path: str) -> int:
        """Read `name` or its canonical twin `name`_bytes; absent is 0."""
        names = [key for key in (name, f"{name}_bytes") if key in fields]
        if len(names) == 2:
            self.fault(_join(path, name), f"given twice, as {name} and {name}_bytes")
        return self.byte_count(fields[names[0]], _join(path, names[0])) if names else 0

    def byte_count(self, raw: object, path: str) -> int:
        if isinstance(raw, str):
            try:
                return parse_bytes(raw)
            except ValueError as error:
                self.fault(path, str(error))
        elif _is_count(raw) and cast(int, raw) <= MAX_BYTES:
            return cast(int, raw)
        else:
            self.fault(path, f"{raw!r} is not a size: want 512MiB, {REST} (partitions) or a number of bytes")
        self.bad.add(path)
        return 0

    def fault(self, path: str, what: str) -> None:
        self.faults.append(f"{path}: {what}")


def _likely_role(content: object) -> str:
    """Return the role that fits `content`, so that a misspelt role does not bring faults of its own."""
    raw = content if isinstance(content, dict) else {}
    if raw.get("type") == "swap":
        return "swap"
    if raw.get("mount") == "/":
        return "root"
    return "esp" if raw.get("kind") == "vfat" else "data"


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
