"""`cloner layout …`: layout documents on this machine, without a server."""

from __future__ import annotations

from pathlib import Path

import click

from cloner_cli.commands import Group, command
from cloner_cli.disklayout import read_layout
from cloner_cli.invocation import Invocation
from cloner_core.layout import Layout, layout_document


@click.group("layout", cls=Group)
def layout_command() -> None:
    """Layout documents: files that describe disks."""


@command("check", example="cloner layout check debian.yaml", group=layout_command)
@click.argument("path", type=click.Path(path_type=Path), metavar="FILE")
def layout_check(run: Invocation, path: Path) -> None:
    """Say every mistake in a layout, each with its path; status 2 when there is one. FILE - is standard input."""
    layout = read_named(path)
    disks, partitions = len(layout.disks), sum(len(disk.partitions) for disk in layout.disks)
    run.result(
        {"name": layout.name, "disks": disks, "partitions": partitions, "document": layout_document(layout)},
        lambda: f"{path}: layout '{layout.name}' is right: {disks} disks, {partitions} partitions",
    )


def read_named(path: Path) -> Layout:
    """Return the layout at `path` under the name that it says, else that of the file."""
    return read_layout(path, None)
