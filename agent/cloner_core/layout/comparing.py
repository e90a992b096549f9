"""What differs between two layouts, field by field, as their documents say it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from cloner_core.layout.document import layout_document
from cloner_core.layout.types import Layout

_KEYS: Final = ("id", "name", "path")  # what tells the items of a list apart, in this order
_MOST_CHARACTERS: Final = 160


def layout_differences(old: Layout, new: Layout) -> tuple[str, ...]:
    """Return one line for each thing that `new` has otherwise than `old`; the names of the layouts do not count."""
    documents = (layout_document(old), layout_document(new))
    for document in documents:
        document.pop("name")
    return tuple(_differences("", *documents))


def _differences(path: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        yield from _of_objects(path, old, new)
    elif isinstance(old, list) and isinstance(new, list):
        yield from _of_lists(path, old, new)
    elif old != new:
        yield f"{path}: {_shown(old)} becomes {_shown(new)}"


def _of_objects(path: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in dict.fromkeys((*old, *new)):
        where = f"{path}.{name}" if path else name
        if name not in new:
            yield f"{where}: {_shown(old[name])} is gone"
        elif name not in old:
            yield f"{where}: {_shown(new[name])} is new"
        else:
            yield from _differences(where, old[name], new[name])


def _of_lists(path: str, old: Sequence[Any], new: Sequence[Any]) -> Iterator[str]:
    key = next((one for one in _KEYS if all(isinstance(item, dict) and one in item for item in (*old, *new))), "")
    if key:
        before, after = ({str(item[key]): item for item in items} for items in (old, new))
    else:
        before, after = ({str(index): item for index, item in enumerate(items)} for items in (old, new))
    for name in dict.fromkeys((*before, *after)):
        where = f"{path}[{name}]"
        if name not in after:
            yield f"{where}: {_shown(before[name])} is gone"
        elif name not in before:
            yield f"{where}: {_shown(after[name])} is new"
        else:
            yield from _differences(where, before[name], after[name])


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"
