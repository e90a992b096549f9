"""Files that list nodes: Cloner's own CSV, xCAT's stanzas, FOG's CSV export. Pure: bytes in, records and faults out.

Must not judge what only the server knows (names taken, images), and never shows a cell it does not import: FOG exports
passwords.
"""

from __future__ import annotations

from cloner_cli.nodefiles.fog import is_fog, read_fog
from cloner_cli.nodefiles.own import is_own, read_own
from cloner_cli.nodefiles.records import NodeFile, shared_faults
from cloner_cli.nodefiles.tables import parse_rows
from cloner_cli.nodefiles.xcat import is_xcat, read_xcat
from cloner_core.errors import InvalidError

FORMATS = ("csv", "xcat", "fog")

__all__ = ["FORMATS", "NodeFile", "read_nodes"]


def read_nodes(content: bytes, form: str = "", *, prefix_length: int | None = None) -> NodeFile:
    """Return what a file says of nodes; `form` is one of FORMATS, or "" to be told from the content.

    `prefix_length` is for addresses that the file gives without one. Raises InvalidError naming every fault found.
    """
    text = _decode(content)
    form = form or _detect(text)
    if form == "xcat":
        found = read_xcat(text, prefix_length)
    else:
        rows, faults = parse_rows(text)
        if faults:
            raise InvalidError("the file cannot be read as CSV", faults=faults)
        found = read_fog(rows) if form == "fog" else read_own(rows, prefix_length)
    if faults := [*found.faults, *shared_faults(found.records)]:
        raise InvalidError(f"the file cannot be imported ({form})", faults=faults, hint="docs/import.md")
    if not found.records:
        raise InvalidError(f"the file names no node ({form})", hint="docs/import.md")
    return found


def _decode(content: bytes) -> str:
    try:
        text = content.decode("utf-8-sig")  # spreadsheets put a byte order mark first
    except UnicodeDecodeError as fault:
        line = content[: fault.start].count(b"\n") + 1
        raise InvalidError(f"line {line}: the file is not UTF-8") from fault
    if "\0" in text:
        raise InvalidError(f"line {text[: text.index(chr(0))].count(chr(10)) + 1}: the file is not text")
    return text


def _detect(text: str) -> str:
    if is_xcat(text):
        return "xcat"
    rows, _ = parse_rows(text, most=1)
    for told, form in ((is_fog, "fog"), (is_own, "csv")):
        if rows and told(rows[0]):
            return form
    raise InvalidError(
        "the file is neither Cloner's CSV (a first line with the columns name and mac), "
        "nor xCAT's stanzas (objtype=node), nor FOG's export",
        hint=f"say which it is: --format {'|'.join(FORMATS)}; docs/import.md",
    )
