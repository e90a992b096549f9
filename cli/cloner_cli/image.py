"""`cloner image-list` and `image-details`: what is published."""

from __future__ import annotations

import click
import msgspec

from cloner_cli.api import segment
from cloner_cli.checking import Checks
from cloner_cli.commands import command
from cloner_cli.findings import details
from cloner_cli.invocation import Invocation
from cloner_cli.text import columns, fields, moment, printable
from cloner_core.admin.images import ImageView
from cloner_core.errors import ClonerError
from cloner_core.image.linting.finding import Finding
from cloner_core.sizes import format_bytes


@command("image-list", example="cloner image-list")
def image_list_command(run: Invocation) -> None:
    """List every version of every image."""
    views = run.api.get("/v1/images", list[ImageView])
    rows = [
        (
            f"{v.image}:{v.number}",
            ",".join(v.channels),
            _size(v),
            v.detail.get("inodes", "-"),
            moment(v.published_s),
            v.author,
            v.digest[:12],
        )
        for v in views
    ]
    run.result(views, lambda: columns(("IMAGE", "CHANNELS", "SIZE", "FILES", "PUBLISHED", "AUTHOR", "DIGEST"), rows))
    for view in views:
        if fault := view.detail.get("fault"):
            run.say(printable(f"note: {view.image}:{view.number}: {fault}"))


@command("image-details", example="cloner image-details --image debian:3")
@click.option("--image", "-i", required=True, metavar="NAME[:VERSION]", help="A number or a channel, else the newest.")
def image_details_command(run: Invocation, image: str) -> None:
    """Show one version of an image."""
    checks = Checks()
    name, number = checks.image(image)
    checks.settle("the command line is wrong")
    view = run.api.get(f"/v1/images/{segment(name)}", ImageView, {"number": number})
    run.result(view, lambda: image_fields(view))


def image_fields(view: ImageView) -> str:
    """Return a version as text."""
    detail = view.detail
    shown: list[tuple[str, object]] = [
        ("image", f"{view.image}:{view.number}"),
        ("channels", ", ".join(view.channels)),
        ("digest", view.digest),
        ("published", f"{moment(view.published_s)} by {view.author}"),
        ("size", _size(view)),
        ("files", detail.get("inodes", "-")),
    ]
    shown += [(name, detail[name]) for name in ("fault", "message", "source") if detail.get(name)]
    if origin := detail.get("origin_key"):
        shown.append(("imported", f"it was signed by {origin}"))
    if (options := view.options) is not None:
        shown += [
            ("next layout", options.layout),
            ("next without", "\n".join((*options.exclude_paths, *options.exclude_devices))),
        ]
    if inexact := detail.get("inexact"):
        shown.append(("inexact", "\n".join(map(str, inexact))))
    if findings := _findings(view):
        shown.append(("findings", "\n".join(details(findings))))
    return fields(shown)


def _size(view: ImageView) -> str:
    size_bytes = view.detail.get("data_bytes")
    return format_bytes(size_bytes) if isinstance(size_bytes, int) else "-"


def _findings(view: ImageView) -> tuple[Finding, ...]:
    try:
        return msgspec.convert(view.detail.get("findings", ()), tuple[Finding, ...])
    except msgspec.ValidationError as fault:
        raise ClonerError(
            f"the findings of {view.image}:{view.number} cannot be read: {fault}",
            hint="the server and this command are of different versions; --json shows them as they are",
        ) from fault
