"""`cloner image-remove`: takes a version away that nothing uses."""

from __future__ import annotations

import click

from cloner_cli.api import segment
from cloner_cli.asking import ask
from cloner_cli.checking import Checks, fold_nodes
from cloner_cli.commands import command, dry_run_option, yes_option
from cloner_cli.invocation import Invocation
from cloner_cli.text import fields, moment
from cloner_core.admin.images import Removal


@command("image-remove", example="cloner image-remove --image debian:3")
@click.option("--image", "-i", required=True, metavar="NAME:NUMBER", help="The version to remove.")
@yes_option
@dry_run_option
def image_remove_command(run: Invocation, image: str, *, yes: bool, dry_run: bool) -> None:
    """Remove one version of an image; shows it and asks first.

    Refused while a channel points to it, a node is to get it or a task of it is not over; each is named. Its number is
    never given again. The bytes that no other version needs go with the next `cloner store gc`.
    """
    checks = Checks()
    name, number = checks.image(image)
    if name and not isinstance(number, int):
        checks.wrong.append(f"image '{image}': want NAME:NUMBER, one version at a time")
    checks.exist(run.api, image=name, version=number)
    checks.settle("nothing was removed")
    path = f"/v1/images/{segment(name)}/versions/{number}"
    removal = run.api.delete(path, Removal, {"dry_run": True})
    if not dry_run:
        run.say(removal_fields(removal))
        ask(run, f"Remove {image}?", is_yes=yes)
        removal = run.api.delete(path, Removal)
    what = "would remove" if dry_run else "removed"
    run.result(removal, lambda: f"{what} {image}; 'cloner store gc' frees what no other version needs")


def removal_fields(removal: Removal) -> str:
    """Return what goes, and what its removal changes for others."""
    shown: list[tuple[str, object]] = [
        ("version", f"{removal.image}:{removal.number}"),
        ("digest", removal.digest),
        ("published", f"{moment(removal.published_s)} by {removal.author}"),
    ]
    if removal.newest == 0:
        shown.append(("note", f"it is the only version of {removal.image}"))
    elif removal.newest is not None:
        who = f", which {fold_nodes(removal.nodes)} will get" if removal.nodes else ""
        shown.append(("note", f"it is the newest; then that is {removal.image}:{removal.newest}{who}"))
    return fields(shown)
