"""Rows of comma-separated values (RFC 4180), each with the line it begins on."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_MOST_ROWS = 65_536
_SEPARATORS = ",;\t"


@dataclass(frozen=True, slots=True)
class Row:
    """One row; cells without surrounding blanks."""

    line: int
    cells: tuple[str, ...]


def parse_rows(text: str, most: int = _MOST_ROWS) -> tuple[list[Row], list[str]]:
    """Return the rows that are not empty, at most `most`, and what is wrong with the file.

    The separator is what the first row has most of: comma, semicolon (spreadsheets of some countries) or tab. A line
    that begins with # is a remark.
    """
    rows: list[Row] = []
    lines = text.splitlines(keepends=True)
    head = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    reader = csv.reader(_without_remarks(lines), delimiter=max(_SEPARATORS, key=head.count), strict=True)
    before = 0
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append(Row(before + 1, tuple(cell.strip() for cell in cells)))
            before = reader.line_num
            if len(rows) >= most:
                break
    except csv.Error as fault:
        return rows, [f"line {reader.line_num}: {fault}"]
    if most == _MOST_ROWS and len(rows) >= most:
        return rows, [f"the file has more than {most} rows"]
    return rows, []


def columns_of(head: Row, known: Sequence[str], faults: list[str]) -> dict[str, int]:
    """Return where each column is; names that are not `known` or come twice go to `faults`."""
    spelled = {name.lower(): name for name in known}
    places: dict[str, int] = {}
    for place, cell in enumerate(head.cells):
        name = spelled.get(cell.lower())
        if name is None:
            faults.append(f"line {head.line}: there is no column '{cell}'; there are: {', '.join(known)}")
        elif name in places:
            faults.append(f"line {head.line}: the column '{name}' comes twice")
        else:
            places[name] = place
    return places


def _without_remarks(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        yield "\n" if line.startswith("#") else line
