"""`cloner disklayout…`: named, numbered descriptions of disks."""

from __future__ import annotations

import re
from pathlib import Path

import click
import msgspec

from cloner_cli.api import segment
from cloner_cli.commands import command, dry_run_option
from cloner_cli.documents import read_document
from cloner_cli.invocation import Invocation
from cloner_cli.text import columns, moment
from cloner_core.admin import LayoutView
from cloner_core.errors import InvalidError
from cloner_core.layout import Layout, layout_document, parse_layout

_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


def read_layout(path: Path, name: str) -> Layout:
    """Return the layout that the document at `path` describes, under `name`.

    A document may leave its name out; another name in it is one fault among the others.
    Raises InvalidError naming every fault.
    """
    document = read_document(path)
    if not isinstance(document, dict):
        raise InvalidError(f"{path} is not a layout", faults=["want an object with the field disks"])
    faults = []
    if document.setdefault("name", name) != name:
        faults.append(f"name: the document says {document['name']!r}, the command line '{name}'")
    try:
        layout = parse_layout(msgspec.json.encode(document, enc_hook=str))
    except InvalidError as fault:
        faults += fault.faults
        layout = None
    if layout is None or faults:
        raise InvalidError(
            f"{path}: {len(faults)} fault{'s' * (len(faults) != 1)}", faults=faults, hint="docs/layout.md"
        )
    return layout


@command("disklayout-upload", example="cloner disklayout-upload --disklayout debian --file debian.yaml")
@click.option("--disklayout", "-l", "name", required=True, metavar="NAME", help="Name of the layout.")
@click.option("--file", "-f", "path", required=True, type=click.Path(path_type=Path), help="JSON or YAML; - is stdin.")
@dry_run_option
def disklayout_upload_command(run: Invocation, name: str, path: Path, dry_run: bool) -> None:
    """Keep a layout under the next number of its name. The same layout again keeps its number."""
    layout = read_layout(path, name)
    view = run.api.post("/v1/layouts", LayoutView, layout, {"dry_run": dry_run})
    run.result(view, lambda: f"layout {view.name}:{view.number}{' would be kept' if dry_run else ''}")


@command("disklayout", example="cloner disklayout --disklayout debian > debian.json")
@click.option("--disklayout", "-l", "name", required=True, metavar="NAME[:N]", help="Layout; the newest unless told.")
def disklayout_command(run: Invocation, name: str) -> None:
    """Print a layout as the document that disklayout-upload takes."""
    name, _, number = name.partition(":")
    if number and not _NUMBER.fullmatch(number):
        raise click.UsageError(f"'{number}' is not the number of a layout")
    view = run.api.get(f"/v1/layouts/{segment(name)}", LayoutView, {"number": int(number) if number else None})
    run.result(view, lambda: msgspec.json.format(msgspec.json.encode(layout_document(view.layout)), indent=2).decode())


@command("disklayout-list", example="cloner disklayout-list")
def disklayout_list_command(run: Invocation) -> None:
    """List the newest number of every layout."""
    views = run.api.get("/v1/layouts", list[LayoutView])
    rows = [
        (
            v.name,
            v.number,
            len(v.layout.disks),
            sum(len(d.partitions) for d in v.layout.disks),
            moment(v.created_s),
            v.author,
        )
        for v in views
    ]
    run.result(views, lambda: columns(("LAYOUT", "NUMBER", "DISKS", "PARTITIONS", "SINCE", "AUTHOR"), rows))
