"""`cloner disklayout…`: named, numbered descriptions of disks."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import click
import msgspec

from cloner_cli.api import segment
from cloner_cli.checking import Checks
from cloner_cli.commands import FilePath, command, dry_run_option, server_option, yes_option
from cloner_cli.detected import (
    decide,
    exclude_devices_option,
    newest,
    store,
    tell_notes,
    update_conflict_option,
)
from cloner_cli.documents import read_document, write_result
from cloner_cli.invocation import Invocation
from cloner_cli.text import columns, moment
from cloner_core.admin.images import LayoutView
from cloner_core.errors import InvalidError
from cloner_core.image.options import Conflict
from cloner_core.layout import Layout, layout_document, parse_layout
from cloner_core.picturing import as_svg, as_text, draw

output_option = click.option(
    "--output", "-o", type=FilePath(), metavar="FILE", help="Write it there; - is standard output."
)
picture_option = click.option("--picture", "is_picture", is_flag=True, help="Show disks and what is on them as bars.")
svg_option = click.option(
    "--svg",
    type=FilePath(),
    metavar="FILE",
    help="Write the picture there as SVG; - is standard output.",
)
_LEAST_COLUMNS, _MOST_COLUMNS = 60, 160
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


def picture_width() -> int:
    """Return the columns a picture may take: those of the terminal, within reason."""
    return min(max(shutil.get_terminal_size((100, 24)).columns, _LEAST_COLUMNS), _MOST_COLUMNS)


def parse_layout_reference(text: str) -> tuple[str, int | None]:
    """Return name and number of "debian:3"; the number is None when there is none. Raises UsageError."""
    name, _, number = text.partition(":")
    if number and not _NUMBER.fullmatch(number):
        raise click.UsageError(f"'{number}' is not the number of a layout")
    return name, int(number) if number else None


def read_layout(path: Path, name: str | None) -> Layout:
    """Return the layout that the document at `path` describes, under `name`.

    A document may leave its name out; another name in it is one fault among the others. With None for the name it is
    what the document says, or else the file.
    Raises InvalidError naming every fault.
    """
    document = read_document(path)
    if not isinstance(document, dict):
        raise InvalidError(f"{path} is not a layout", faults=["want an object with the field disks"])
    faults = []
    if name is None:
        document.setdefault("name", path.stem if str(path) != "-" else "layout")
    elif document.setdefault("name", name) != name:
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


image_option = click.option(
    "--image", "-i", default="", metavar="NAME", help="An image it is for; must exist. Any image can use any layout."
)


@command("disklayout-upload", example="cloner disklayout-upload --disklayout debian --file debian.yaml")
@image_option
@click.option("--disklayout", "-l", "name", required=True, metavar="NAME", help="Name of the layout.")
@click.option("--file", "-f", "path", required=True, type=FilePath(), help="JSON or YAML; - is stdin.")
@dry_run_option
def disklayout_upload_command(run: Invocation, *, image: str, name: str, path: Path, dry_run: bool) -> None:
    """Keep a layout under the next number of its name. The same layout again keeps its number."""
    layout = read_layout(path, name)
    _require_image(run, image)
    view = store(run, layout, is_dry=dry_run)
    run.result(view, lambda: f"layout {view.name}:{view.number}{' would be kept' if dry_run else ''}")


@command("disklayout", example="cloner disklayout --disklayout debian --output debian.json")
@image_option
@click.option("--disklayout", "-l", "name", required=True, metavar="NAME[:N]", help="Layout; the newest unless told.")
@output_option
@picture_option
@svg_option
def disklayout_command(
    run: Invocation, *, image: str, name: str, output: Path | None, is_picture: bool, svg: Path | None
) -> None:
    """Print a layout as the document that disklayout-upload takes, or as a picture."""
    name, number = parse_layout_reference(name)
    _require_image(run, image)
    view = run.api.get(f"/v1/layouts/{segment(name)}", LayoutView, {"number": number})
    shown = msgspec.json.format(msgspec.json.encode(layout_document(view.layout)), indent=2).decode()
    if output is not None:
        write_result(output, f"{shown}\n")
    if svg is not None:
        write_result(svg, as_svg(draw(view.layout)))
    if output is not None or svg is not None:
        shown = ""
    run.result(view, lambda: as_text(draw(view.layout), picture_width()) if is_picture else shown)


@command("update-disklayout", example="cloner update-disklayout --disklayout debian --exclude-devices /dev/sdb")
@server_option
@image_option
@click.option("--disklayout", "-l", "name", required=True, metavar="NAME", help="Name of the layout.")
@exclude_devices_option
@update_conflict_option
@yes_option
@dry_run_option
def update_disklayout_command(
    run: Invocation, *, image: str, name: str, excludes: tuple[str, ...], conflict: str, yes: bool, dry_run: bool
) -> None:
    """Describe the disks of this machine, and keep that as the next number of a layout.

    Shows what is otherwise than in the newest number; where nothing is, nothing is stored. What no layout can
    describe is named, device by device. Selectors tell disks by kind and place, not by serial: other machines have
    others.
    """
    _require_image(run, image)
    detected = run.world.detect(name, excludes)
    tell_notes(run, detected)
    kept = newest(run, name)
    is_new = kept is None
    if kept is None or decide(run, detected.layout, kept, Conflict(conflict), is_yes=yes, is_dry=dry_run):
        view, is_stored = store(run, detected.layout, is_dry=dry_run), True
    else:
        view, is_stored = kept, False
    told = {"layout": view, "stored": is_stored and not dry_run, "new": is_new, "notes": detected.notes}
    what = ("would be stored" if dry_run else "stored") if is_stored else "is kept as it is"
    run.result(told, lambda: f"layout {view.name}:{view.number} {what}")


def _require_image(run: Invocation, image: str) -> None:
    """Raise NotFoundError unless `image` ("NAME" or "NAME:N") is known; "" is none."""
    checks = Checks()
    name, version = checks.image(image)
    checks.exist(run.api, image=name, version=version)
    checks.settle()


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
