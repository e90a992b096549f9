"""Documents people write, JSON or YAML, read into JSON. Must not judge what they say: that is the core's."""

from __future__ import annotations

import sys
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import msgspec

from cloner_core.decoding import UNREADABLE
from cloner_core.errors import InvalidError

MAX_BYTES = 1 << 20


def read_document(path: Path) -> Any:
    """Return what the document at `path` ("-": standard input) says, as JSON types; raises InvalidError."""
    try:
        if str(path) == "-":
            content = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
    except OSError as fault:
        raise InvalidError(f"{path} cannot be read: {fault.strerror}") from fault
    if len(content) > MAX_BYTES:
        raise InvalidError(f"{path} is longer than {MAX_BYTES} bytes")
    if content.lstrip()[:1] in (b"{", b"["):
        try:
            return msgspec.json.decode(content)
        except UNREADABLE as fault:
            if path.suffix == ".json":
                raise InvalidError(f"{path} is not JSON", faults=[str(fault)]) from fault
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

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
            seen: set[object] = set()
            for key, _ in node.value:
                name = self.construct_object(key, deep=True)
                if not isinstance(name, str) or name in seen:
                    what = "is given twice" if name in seen else "is not text"
                    raise yaml.YAMLError(f"line {key.start_mark.line + 1}: key {name!r} {what}")
                seen.add(name)
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(content, Loader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as fault:
        raise InvalidError(f"{where} is not YAML", faults=[" ".join(str(fault).split())]) from fault
