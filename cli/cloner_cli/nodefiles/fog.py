"""FOG's export of hosts: CSV, since FOG 1.6 with a first row of column names, before that by place.

Source: fogproject, docs/CSV_IMPORT_EXPORT.md. The first columns stand in the same place in every version since 1.3;
only these and `associations` are looked at, for further ones hold passwords and product keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from cloner_cli.nodefiles.records import NodeFile, NodeRecord, Words, read_macs
from cloner_cli.nodefiles.tables import Row

_BY_PLACE = ("primac", "name", "description", "ip", "imageID")
_ASSOCIATIONS = 31  # the place of that column where there is no first row of names
_MAC_LIST = re.compile(r"[0-9A-Fa-f]{2}([:-]?[0-9A-Fa-f]{2}){5}(\|.*)?")
_NOT_IN_GROUPS = re.compile(r"[^A-Za-z0-9._-]+")
_IGNORED = ("description", "ip", "imageID")
_WHY = {
    "description": "descriptions are not imported",
    "ip": "ip is the address FOG saw last, not one a node is given; it is not imported",
    "imageID": "images of FOG are not Cloner's; --image and --disklayout say what nodes get",
}


def is_fog(head: Row) -> bool:
    """Whether this can be the first row of such a file, with names or without."""
    names = {cell.lower() for cell in head.cells}
    return {"primac", "name"} <= names or (len(head.cells) > 1 and bool(_MAC_LIST.fullmatch(head.cells[0])))


def read_fog(rows: Sequence[Row]) -> NodeFile:
    """Return the hosts of the rows. Names become lower case: they are the host names of clones."""
    if not rows:
        return NodeFile("fog", ())
    faults: list[str] = []
    names = [cell.lower() for cell in rows[0].cells]
    if "primac" in names:
        places = {name: names.index(name.lower()) for name in (*_BY_PLACE, "associations") if name.lower() in names}
        rows = rows[1:]
    else:
        places = {name: place for place, name in enumerate(_BY_PLACE)} | {"associations": _ASSOCIATIONS}
    if "name" not in places:
        return NodeFile("fog", (), faults=("line 1: the column 'name' is missing",))
    records, notes = [], dict[str, None]()
    for row in rows:
        cell = {name: row.cells[place] for name, place in places.items() if place < len(row.cells)}
        where = f"line {row.line}: {cell.get('name') or 'a host'}"
        if not cell.get("name"):
            faults.append(f"{where}: it has no name")
        listed = [text for text in cell.get("primac", "").split("|") if text]
        macs = read_macs(listed, faults, where)
        if not listed:
            faults.append(f"{where}: it has no MAC address")
        groups = tuple(dict.fromkeys(_groups(cell.get("associations", ""), notes)))
        notes.update(dict.fromkeys(_WHY[name] for name in _IGNORED if cell.get(name, "") not in ("", "0")))
        records.append(NodeRecord(row.line, cell.get("name", "").lower(), macs, groups=groups or None))
    return NodeFile("fog", tuple(records), tuple(notes), tuple(faults))


def _groups(cell: str, notes: dict[str, None]) -> Iterator[str]:
    r"""Give the groups of "groups:Lab A|Lab B;snapins:7zip"; a backslash before ; : | takes their meaning away."""
    for part in _split(cell, ";"):
        label, *values = _split(part, ":")
        if label.strip() != "groups":
            if label.strip():
                notes[f"{_plain(label.strip())} are not imported"] = None
            continue
        for value in _split(":".join(values), "|"):
            name = _plain(value.strip())
            group = _NOT_IN_GROUPS.sub("-", name).strip("-._")[:64]
            if group and group != name:
                notes[f"the group '{name}' is called '{group}' here"] = None
            if group:
                yield group


def _split(text: str, sign: str) -> Words:
    return tuple(re.findall(rf"(?:\\.|[^\\{sign}])+", text, re.DOTALL))


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
