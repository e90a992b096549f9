"""`cloner layout …`: layout documents on this machine, without a server."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cloner_cli.commands import FilePath, Group, command
from cloner_cli.disklayout import picture_width, read_layout, svg_option
from cloner_cli.documents import write_result
from cloner_cli.invocation import Invocation
from cloner_core.layout import Layout, layout_document
from cloner_core.layout.schema import layout_schema
from cloner_core.picturing import as_svg, as_text, draw


@click.group("layout", cls=Group)
def layout_command() -> None:
    """Layout documents: files that describe disks."""


@command("check", example="cloner layout check debian.yaml", group=layout_command)
@click.argument("path", type=FilePath(), metavar="FILE")
def layout_check(run: Invocation, path: Path) -> None:
    """Say every mistake in a layout, each with its path; status 2 when there is one. FILE - is standard input."""
    layout = read_named(path)
    disks, partitions = len(layout.disks), sum(len(disk.partitions) for disk in layout.disks)
    run.result(
        {"name": layout.name, "disks": disks, "partitions": partitions, "document": layout_document(layout)},
        lambda: f"{path}: layout '{layout.name}' is right: {disks} disks, {partitions} partitions",
    )


@command("picture", example="cloner layout picture debian.yaml --svg debian.svg", group=layout_command)
@click.argument("path", type=FilePath(), metavar="FILE")
@svg_option
def layout_picture(run: Invocation, path: Path, svg: Path | None) -> None:
    """Show a layout document as bars: disks, what lies on what, and sizes. FILE - is standard input."""
    layout = read_named(path)
    if svg is not None:
        write_result(svg, as_svg(draw(layout)))
    run.result(layout_document(layout), lambda: "" if svg is not None else as_text(draw(layout), picture_width()))


@command("schema", example="cloner layout schema > layout.schema.json", group=layout_command)
def layout_schema_command(run: Invocation) -> None:
    """Print the JSON Schema (2020-12) of layout documents, for editors."""
    schema = layout_schema()
    run.result(schema, lambda: json.dumps(schema, indent=2))


def read_named(path: Path) -> Layout:
    """Return the layout at `path` under the name that it says, else that of the file."""
    return read_layout(path, None)
