"""Walking a decoded document: a bad value is noted with its path, marked and replaced, so that the walk goes on.

Must not know what a layout is; `document` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

from cloner_core.sizes import MAX_BYTES, parse_bytes

MAX_ITEMS = 128
_T = TypeVar("_T")


class Reader:
    """What all parts of a document are read with; `faults` are in the order of the document."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.bad: set[str] = set()  # paths whose values are stand-ins: rules must not judge them

    def fault(self, path: str, what: str) -> None:
        """Note what is wrong at `path`."""
        self.faults.append(f"{path}: {what}")

    def fields(
        self, raw: object, path: str, *, required: Iterable[str] = (), optional: Iterable[str] = ()
    ) -> dict[str, Any]:
        """Return the object `raw`, with a fault for each unknown and each missing field."""
        if not isinstance(raw, dict):
            self.fault(path or "layout", f"is {kind_of(raw)}; want an object")
            self.bad.update(join(path, name) for name in required)
            return {}
        known = (*required, *optional)
        for name in raw:
            if name not in known:
                self.fault(join(path, str(name)), f"unknown field; known are {', '.join(known)}")
        for name in required:
            if name not in raw:
                self.fault(join(path, name), "is missing")
        return raw

    def items(
        self,
        fields: Mapping[str, Any],
        name: str,
        path: str,
        read: Callable[[object, str], _T],
        *,
        is_needed: bool = True,
    ) -> tuple[_T, ...]:
        """Read each item of the list `name`; one that is needed must not be empty."""
        where = join(path, name)
        raw = fields.get(name, [])
        if not isinstance(raw, list) or len(raw) > MAX_ITEMS:
            self.fault(where, f"is {kind_of(raw)}; want a list of at most {MAX_ITEMS}")
            self.bad.add(where)
            return ()
        if is_needed and not raw:
            if name in fields:
                self.fault(where, "is empty")
            self.bad.add(where)
        return tuple(read(item, f"{where}[{index}]") for index, item in enumerate(raw))

    def text(self, fields: Mapping[str, Any], name: str, path: str, *, default: str | None = None) -> str:
        """Read a text; one without a default that is missing was noted by `fields`."""
        value = fields.get(name, default)
        if isinstance(value, str):
            return value
        self.bad.add(join(path, name))
        if name in fields:
            self.fault(join(path, name), f"is {kind_of(value)}; want text")
        return ""

    def flag(self, fields: Mapping[str, Any], name: str, path: str) -> bool:
        """Read true or false; absent is false."""
        value = fields.get(name, False)
        if isinstance(value, bool):
            return value
        self.fault(join(path, name), f"is {kind_of(value)}; want true or false")
        return False

    def count(
        self, fields: Mapping[str, Any], name: str, path: str, *, least: int, most: int, default: int | None = None
    ) -> int:
        """Read a whole number between two bounds; one without a default that is missing was noted by `fields`."""
        value = fields.get(name, default)
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        self.bad.add(join(path, name))
        if name in fields:
            self.fault(join(path, name), f"{value!r} is not a whole number from {least} to {most}")
        return least if default is None else default

    def choice(
        self,
        fields: Mapping[str, Any],
        name: str,
        path: str,
        known: tuple[str, ...],
        *,
        stand_in: str = "",
        default: str | None = None,
    ) -> str:
        """Read one of the words `known`."""
        value = fields.get(name, default)
        if value in known:
            return cast(str, value)
        self.bad.add(join(path, name))
        if name in fields:
            self.fault(join(path, name), f"{value!r} is not one of {', '.join(known)}")
        return stand_in or known[-1]

    def bytes_of(self, fields: Mapping[str, Any], name: str, path: str) -> int:
        """Read `name` or its canonical twin `name`_bytes; absent is 0."""
        names = [key for key in (name, f"{name}_bytes") if key in fields]
        if len(names) == 2:
            self.fault(join(path, name), f"given twice, as {name} and {name}_bytes")
        return self.byte_count(fields[names[0]], join(path, names[0])) if names else 0

    def byte_count(self, raw: object, path: str, *, what: str = "") -> int:
        """Read "512MiB" or a number of bytes; `what` names what else could stand there."""
        if isinstance(raw, str):
            try:
                return parse_bytes(raw)
            except ValueError as error:
                self.fault(path, str(error))
        elif is_count(raw) and cast(int, raw) <= MAX_BYTES:
            return cast(int, raw)
        else:
            self.fault(path, f"{raw!r} is not a size: want 512MiB, {what}or a number of bytes")
        self.bad.add(path)
        return 0


def is_count(value: object) -> bool:
    """Whether `value` is a whole number, not negative."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def join(path: str, name: str) -> str:
    """Return the path of the field `name` of what is at `path`."""
    return f"{path}.{name}" if path else name


def kind_of(value: object) -> str:
    """Return what `value` is in the words of JSON."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
