"""`cloner channel`: names that point to versions of an image, and are moved."""

from __future__ import annotations

import click
from msgspec import UNSET

from cloner_cli.api import Query, segment
from cloner_cli.checking import Checks, fold_nodes
from cloner_cli.commands import COUNT, Group, command, dry_run_option
from cloner_cli.invocation import Invocation
from cloner_cli.text import columns, moment
from cloner_core.admin.channels import ChannelChange, ChannelView
from cloner_core.errors import InvalidError
from cloner_core.image.reference import channel_faults, parse_version

_image_option = click.option("--image", "-i", required=True, metavar="NAME", help="Image the channel is of.")
_channel_option = click.option(
    "--channel", "-c", "name", required=True, metavar="CHANNEL", help="Its name: prod, test; begins with a letter."
)
_revision_option = click.option(
    "--revision", type=COUNT, metavar="N", help="Only if the channel still has this revision; 0: only if it is new."
)


@click.group("channel", cls=Group)
def channel_command() -> None:
    """Channels: names as prod and test that point to one version of an image each, usable wherever a version is."""


@command("list", example="cloner channel list --image debian", group=channel_command)
@click.option("--image", "-i", default="", metavar="NAME", help="Only those of this image.")
def channel_list(run: Invocation, image: str) -> None:
    """List channels, the version each points to, and the nodes that follow it.

    What a channel pointed to before: `cloner events --object channel/IMAGE:CHANNEL`.
    """
    views = run.api.get("/v1/channels", list[ChannelView], {"image": image})
    titles = ("CHANNEL", "VERSION", "SINCE", "AUTHOR", "REVISION", "NODES")
    rows = [
        (f"{v.image}:{v.channel}", v.version, moment(v.changed_s), v.author, v.revision, fold_nodes(v.nodes))
        for v in views
    ]
    run.result(views, lambda: columns(titles, rows))


@command("set", example="cloner channel set --image debian --channel prod --version 7", group=channel_command)
@_image_option
@_channel_option
@click.option("--version", required=True, metavar="N|CHANNEL", help="What it points to; of a channel: its version now.")
@_revision_option
@dry_run_option
def channel_set(run: Invocation, image: str, name: str, *, version: str, revision: int | None, dry_run: bool) -> None:
    """Point a channel to a version; the channel is made when there is none of the name.

    Nodes that follow it take that version at their next deploy. What is armed already keeps the version it was armed
    with.
    """
    checks = Checks()
    wanted = None
    checks.wrong += channel_faults(name)
    try:
        wanted = parse_version(version)
        checks.wrong += ["--version: want a number or a channel"] if wanted is None else []
    except InvalidError as fault:
        checks.wrong.append(f"--version: {fault.message}")
    checks.exist(run.api, image=image, version=wanted)
    checks.settle()
    assert wanted is not None
    change = ChannelChange(version=wanted, revision=UNSET if revision is None else revision)
    view = run.api.patch(_path(image, name), ChannelView, change, {"dry_run": dry_run})
    told = f"; followed by {fold_nodes(view.nodes)}" if view.nodes else ""
    run.result(view, lambda: f"{image}:{name} {'would be' if dry_run else 'is'} {image}:{view.version}{told}")


@command("remove", example="cloner channel remove --image debian --channel test", group=channel_command)
@_image_option
@_channel_option
@_revision_option
@dry_run_option
def channel_remove(run: Invocation, image: str, name: str, *, revision: int | None, dry_run: bool) -> None:
    """Remove a channel that no node follows; the version it points to stays."""
    query: Query = {"revision": revision, "dry_run": dry_run}
    view = run.api.delete(_path(image, name), ChannelView, query)
    run.result(
        view, lambda: f"{'would remove' if dry_run else 'removed'} {image}:{name}, which was {image}:{view.version}"
    )


def _path(image: str, name: str) -> str:
    return f"/v1/images/{segment(image)}/channels/{segment(name)}"
