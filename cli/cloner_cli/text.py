"""Text for terminals and pipes: columns, times, durations. Pure.

Much of what is shown was said by machines nobody vouches for (serials, labels, log lines): control characters are
shown as escapes, never sent to the terminal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime


def printable(text: str, keep: str = "") -> str:
    """Return `text` with every character that is not printable escaped, except those in `keep`."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def encodable(text: str) -> str:
    """Return `text` with what JSON has no room for escaped: bytes of a file name that are not UTF-8."""
    return text.encode(errors="backslashreplace").decode()


def columns(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return aligned columns, two blanks apart, never folded: a line is a row, so that grep and cut work."""
    cells = [list(titles), *([printable(str(cell)) or "-" for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(titles))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(line.rstrip() for line in lines)


def first_few(words: Sequence[str], most: int = 5) -> str:
    """Return the first of `words` and how many there are beside them."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def fields(pairs: Iterable[tuple[str, object]]) -> str:
    """Return one "name  value" line each, values aligned; a value of several lines is indented."""
    shown = [(name, printable(str(value), keep="\n") or "-") for name, value in pairs]
    width = max((len(name) for name, _ in shown), default=0)
    indent = "\n" + " " * (width + 2)
    return "\n".join(f"{name.ljust(width)}  {value.replace(chr(10), indent)}" for name, value in shown)


def moment(time_s: float | None) -> str:
    """Return a time as people here write it, or "-" for None."""
    return "-" if time_s is None else datetime.fromtimestamp(time_s).strftime("%Y-%m-%d %H:%M:%S")


_UNITS_S = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str) -> float:
    """Return the seconds of "90s", "30min", "12h" or "7d"; raises ValueError that says what is wanted."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*(s|min|h|d)", text.strip(), re.ASCII)
    if match is None:
        raise ValueError(f"'{text}' is not a time: want a number and a unit, as 90s, 30min, 12h or 7d")
    return float(match[1]) * _UNITS_S[match[2]]


def duration(seconds: float) -> str:
    """Return a duration with its two greatest units: "1 h 5 min", "3 min 20 s", "45 s"."""
    whole = max(0, round(seconds))
    parts = [(whole // 3600, "h"), (whole // 60 % 60, "min"), (whole % 60, "s")]
    while len(parts) > 1 and not parts[0][0]:
        del parts[0]
    return " ".join(f"{count} {unit}" for count, unit in parts[:2] if count or unit == parts[0][1])
