"""Selectors in a document: reading, and writing back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, cast

from cloner_core.layout.reading import MAX_ITEMS, Reader, join, kind_of
from cloner_core.layout.types import Match, Pick, Selector
from cloner_core.sizes import document_bytes

PATTERNS: Final = ("serial", "model", "wwn", "bus", "path", "controller", "bay")
"""Fields of a selector that say what a text must be like."""
_SIZES: Final = ("size_min", "size_max", "size_min_bytes", "size_max_bytes")
ORDERS: Final = ("path", "bay", "serial", "size", "wwn")


def read_selector(reader: Reader, raw: object, path: str) -> Selector:
    """Return the selector `raw` describes; whatever is wrong is noted."""
    fields = reader.fields(raw, path, optional=(*PATTERNS, *_SIZES, "rotational", "sector", "sector_bytes", "pick"))
    patterns: dict[str, str | Match] = {name: _pattern(reader, fields, name, path) for name in PATTERNS}
    return Selector(
        **patterns,
        size_min_bytes=reader.bytes_of(fields, "size_min", path),
        size_max_bytes=reader.bytes_of(fields, "size_max", path),
        rotational=reader.flag(fields, "rotational", path) if "rotational" in fields else None,
        sector_bytes=reader.bytes_of(fields, "sector", path),
        pick=_pick(reader, fields["pick"], join(path, "pick")) if fields.get("pick") is not None else None,
    )


def selector_document(select: Selector) -> dict[str, Any]:
    """Return `select` as a document holds it."""
    written: dict[str, Any] = {}
    for name in PATTERNS:
        value = getattr(select, name)
        if isinstance(value, Match):
            written[name] = {key: list(texts) for key in ("any", "none") if (texts := getattr(value, key))}
        elif value:
            written[name] = value
    if select.size_min_bytes:
        written["size_min"] = document_bytes(select.size_min_bytes)
    if select.size_max_bytes:
        written["size_max"] = document_bytes(select.size_max_bytes)
    if select.rotational is not None:
        written["rotational"] = select.rotational
    if select.sector_bytes:
        written["sector"] = document_bytes(select.sector_bytes)
    if select.pick:
        written["pick"] = {"nth": select.pick.nth, "of": select.pick.of, "by": select.pick.by}
    return written


def _pattern(reader: Reader, fields: Mapping[str, Any], name: str, path: str) -> str | Match:
    raw = fields.get(name, "")
    where = join(path, name)
    if isinstance(raw, str):
        return raw
    if isinstance(raw, list):
        return Match(any=_texts(reader, raw, where))
    if isinstance(raw, dict):
        told = reader.fields(raw, where, optional=("any", "none"))
        return Match(
            any=_texts(reader, told.get("any", []), join(where, "any")),
            none=_texts(reader, told.get("none", []), join(where, "none")),
        )
    reader.fault(where, f"is {kind_of(raw)}; want text, a list of texts, or {{any: …, none: …}}")
    return ""


def _texts(reader: Reader, raw: object, path: str) -> tuple[str, ...]:
    if isinstance(raw, list) and len(raw) <= MAX_ITEMS and all(isinstance(one, str) and one for one in raw):
        return tuple(raw)
    reader.fault(path, f"is not a list of at most {MAX_ITEMS} texts")
    return ()


def _pick(reader: Reader, raw: object, path: str) -> Pick:
    fields = reader.fields(raw, path, required=("nth", "of", "by"))
    by = reader.choice(fields, "by", path, ORDERS)
    return Pick(
        nth=reader.count(fields, "nth", path, least=1, most=MAX_ITEMS),
        of=reader.count(fields, "of", path, least=1, most=MAX_ITEMS),
        by=cast(Literal["path", "bay", "serial", "size", "wwn"], by),
    )
