"""Cloner's own CSV: a first row of column names, in any order, then a row a node."""

from __future__ import annotations

from collections.abc import Sequence

from cloner_cli.nodefiles.records import NodeFile, NodeRecord, Words, read_macs, with_prefix
from cloner_cli.nodefiles.tables import Row, columns_of

COLUMNS = (
    "name",
    "mac",
    "uuid",
    "serial",
    "groups",
    "image",
    "layout",
    "hostname",
    "address",
    "gateway",
    "dns",
    "domains",
    "kernel_arguments",
    "protected",
)
_TRUTH = {"": None, "yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


def is_own(head: Row) -> bool:
    """Whether this can be the first row of such a file."""
    return {"name", "mac"} <= {cell.lower() for cell in head.cells}


def read_own(rows: Sequence[Row], prefix_length: int | None) -> NodeFile:
    """Return the nodes of the rows; a column that is left out, or an empty cell, says nothing about its field."""
    if not rows:
        return NodeFile("csv", ())
    faults: list[str] = []
    places = columns_of(rows[0], COLUMNS, faults)
    faults += [f"line {rows[0].line}: the column '{name}' is missing" for name in ("name", "mac") if name not in places]
    if faults:
        return NodeFile("csv", (), faults=tuple(faults))
    records = [_record(row, places, len(rows[0].cells), prefix_length, faults) for row in rows[1:]]
    return NodeFile("csv", tuple(records), faults=tuple(faults))


def _record(row: Row, places: dict[str, int], width: int, prefix_length: int | None, faults: list[str]) -> NodeRecord:
    cell = {name: row.cells[place] for name, place in places.items() if place < len(row.cells)}
    where = f"line {row.line}: {cell.get('name') or 'a node'}"
    if len(row.cells) > width:
        faults.append(f"{where}: {len(row.cells)} cells, and {width} columns are named")
    if not cell.get("name"):
        faults.append(f"{where}: it has no name")
    macs = read_macs(_words(cell.get("mac", "")), faults, where)
    if not _words(cell.get("mac", "")):
        faults.append(f"{where}: it has no MAC address")
    addresses = [with_prefix(text, prefix_length, faults, where) for text in _words(cell.get("address", ""))]
    truth = cell.get("protected", "").lower()
    if truth not in _TRUTH:
        faults.append(f"{where}: protected is '{truth}', want yes or no")
    listed = {name: _words(cell[name]) for name in ("dns", "domains", "groups", "kernel_arguments") if cell.get(name)}
    single = {name: cell[name] for name in ("hostname", "gateway", "image", "layout") if cell.get(name)}
    return NodeRecord(
        line=row.line,
        name=cell.get("name", ""),
        macs=macs,
        hostname=single.get("hostname"),
        addresses=tuple(addresses) or None,
        gateway=single.get("gateway"),
        dns=listed.get("dns"),
        domains=listed.get("domains"),
        groups=listed.get("groups"),
        image=single.get("image"),
        layout=single.get("layout"),
        uuid=cell["uuid"].lower() if cell.get("uuid") else None,
        serial=cell.get("serial") or None,
        kernel_arguments=listed.get("kernel_arguments"),
        is_protected=_TRUTH.get(truth),
    )


def _words(cell: str) -> Words:
    """Several values in one cell stand apart by blanks or |: commas are the table's."""
    return tuple(cell.replace("|", " ").split())
