"""What people hand in: files and standard input, and documents in them, JSON or YAML, read into JSON types.

Must not judge what a document says: that is the core's.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Hashable
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from cloner_cli.reporting import give
from cloner_core.decoding import UNREADABLE
from cloner_core.errors import InvalidError

MAX_BYTES = 1 << 20
_LINE_BYTES = 4096


def read_input(path: Path, most_bytes: int, *, hint: str = "") -> bytes:
    """Return what is at `path` ("-": standard input); raises InvalidError when it cannot be read or is longer."""
    content = _read(path, most_bytes + 1)
    if len(content) > most_bytes:
        raise InvalidError(f"{path} is longer than {most_bytes} bytes", hint=hint)
    return content


def write_result(path: Path, text: str) -> None:
    """Write a result to `path` ("-": standard output), whole or not at all; raises InvalidError when it cannot be."""
    if str(path) == "-":
        give(text.rstrip("\n"))
        return
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as fault:
        part.unlink(missing_ok=True)
        raise InvalidError(f"{path} cannot be written: {fault.strerror}") from fault


def read_first_line(path: Path) -> str:
    """Return the first line at `path` ("-": standard input) without its end; raises InvalidError unless it is UTF-8."""
    line = _read(path, _LINE_BYTES, is_line=True).rstrip(b"\r\n")
    try:
        return line.decode()
    except UnicodeDecodeError as fault:
        raise InvalidError(f"the first line of {path} is not UTF-8") from fault


def read_document(path: Path) -> Any:
    """Return what the document at `path` ("-": standard input) says, as JSON types; raises InvalidError."""
    content = read_input(path, MAX_BYTES)
    if content.lstrip()[:1] in (b"{", b"["):
        try:
            document = msgspec.json.decode(content)
        except UNREADABLE as fault:
            if path.suffix == ".json":
                raise InvalidError(f"{path} is not JSON", faults=[str(fault)]) from fault
        else:
            _require_unique_keys(content, path)
            return document
    return parse_yaml(content, str(path))


def parse_yaml(content: bytes, where: str) -> Any:
    """Return what a YAML document says; a key given twice and an alias are faults, and names of keys are text."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Safe, and without what would hide a mistake or blow up: duplicate keys, aliases."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError(f"{self.get_mark()}: aliases (*name) are not taken")
            return super().compose_node(parent, index)

        def construct_object(self, node: Any, deep: bool = False) -> Any:
            try:
                value = super().construct_object(node, deep)
                if isinstance(value, str):
                    value.encode()  # "\ud800" is half a character: nothing can be done with it later
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as fault:
                # PyYAML's own, on what its tag does not fit: !!bool foo, !!int "", !!timestamp foo.
                what = f"'{node.value}'" if isinstance(node, yaml.ScalarNode) else "what stands here"
                raise yaml.YAMLError(f"line {node.start_mark.line + 1}: {what} is no {node.tag}") from fault
            return value

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
            seen: set[str] = set()
            for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                name = self.construct_object(key, deep=True)
                if not isinstance(name, str):
                    raise yaml.YAMLError(f"line {key.start_mark.line + 1}: key {name!r} is not text")
                if name in seen:
                    raise yaml.YAMLError(f"line {key.start_mark.line + 1}: key {name!r} is given twice")
                seen.add(name)
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(content, Loader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as fault:
        raise InvalidError(f"{where} is not YAML", faults=[" ".join(str(fault).split())]) from fault


def _require_unique_keys(content: bytes, path: Path) -> None:
    """Raise InvalidError when an object of a JSON text has a key twice: the last one would count, silently."""

    def once(pairs: list[tuple[str, Any]]) -> None:
        counts = Counter(name for name, _ in pairs)
        if twice := sorted(name for name, count in counts.items() if count > 1):
            raise InvalidError(f"{path} is not taken", faults=[f"key {name!r} is given twice" for name in twice])

    try:
        json.loads(content, object_pairs_hook=once)
    except (ValueError, RecursionError) as fault:
        raise InvalidError(f"{path} is not JSON", faults=[str(fault)]) from fault


def _read(path: Path, most_bytes: int, *, is_line: bool = False) -> bytes:
    """Return the first bytes at `path`, of its first line alone with `is_line`."""

    def some(file: BinaryIO) -> bytes:
        return file.readline(most_bytes) if is_line else file.read(most_bytes)

    try:
        if str(path) != "-":
            with path.open("rb") as file:
                return some(file)
        if sys.stdin is None:  # `<&-`, and what some supervisors start programs with
            raise InvalidError("standard input is closed", hint="name a file, or give it one: < FILE")
        return some(sys.stdin.buffer)
    except OSError as fault:
        raise InvalidError(f"{path} cannot be read: {fault.strerror}") from fault
    except ValueError as fault:  # a NUL in the path
        raise InvalidError(f"{str(path)!r} is not the name of a file") from fault
