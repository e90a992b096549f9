"""`cloner config`: what a node with an image and a layout gets."""

from __future__ import annotations

import click

from cloner_cli.api import segment
from cloner_cli.checking import Checks
from cloner_cli.commands import command
from cloner_cli.disklayout import parse_layout_reference, picture_width
from cloner_cli.invocation import Invocation
from cloner_cli.text import fields, moment
from cloner_core.admin.configs import ConfigFilesystem, ImageConfig
from cloner_core.picturing import as_text, draw
from cloner_core.sizes import format_bytes


@command("config", example="cloner config --image debian --disklayout debian")
@click.option("--image", "-i", required=True, metavar="NAME[:VERSION]", help="Image; the newest version unless told.")
@click.option("--disklayout", "-l", "layout", required=True, metavar="NAME[:N]", help="Layout; the newest unless told.")
def config_command(run: Invocation, image: str, layout: str) -> None:
    """Show what a node with this image and this layout gets: version, size, what was left out, scripts, disks.

    Whether it fits a certain node, and what would be destroyed there, say `cloner fit` and `cloner plan`.
    """
    layout_name, layout_number = parse_layout_reference(layout)
    checks = Checks()
    name, number = checks.image(image)
    checks.exist(run.api, image=name, version=number, layout=layout_name, layout_number=layout_number)
    checks.settle("nothing can be shown")
    query = {"number": number, "layout": layout_name, "layout_number": layout_number}
    view = run.api.get(f"/v1/images/{segment(name)}/config", ImageConfig, query)
    run.result(view, lambda: config_text(view, picture_width()))


def config_text(view: ImageConfig, width: int) -> str:
    """Return it as text, the layout as a picture of `width` columns."""
    newest = "the newest" if view.number == view.newest else f"the newest is {view.newest}"
    stored = f"{format_bytes(view.stored_bytes)} in {view.packs} packs to fetch"
    shown: list[tuple[str, object]] = [
        ("image", f"{view.image}:{view.number} ({newest})"),
        ("digest", view.digest),
        ("published", f"{moment(view.published_s)} by {view.author}"),
        *((name, text) for name, text in (("message", view.message), ("source", view.source)) if text),
        ("system", f"{view.system or 'not known'}, {view.architecture or 'any architecture'}"),
        ("size", f"{view.inodes} files, {format_bytes(view.data_bytes)}; {stored}"),
        ("room for", "\n".join(map(_filesystem, view.filesystems))),
        ("left out", "\n".join(view.left_out) or "nothing beside what no image has"),
        ("scripts", "\n".join(view.scripts) or "none"),
        ("layout", f"{view.layout.name}:{view.layout.number} of {moment(view.layout.created_s)}"),
    ]
    return f"{fields(shown)}\n\n{as_text(draw(view.layout.layout), width)}"


def _filesystem(each: ConfigFilesystem) -> str:
    was = f", was {each.type}" if each.type else ""
    return f"{format_bytes(each.allocated_bytes)} and {each.inodes} inodes at {each.mount}{was}"
