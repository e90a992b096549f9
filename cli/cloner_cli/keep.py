"""`cloner image keep`: how many versions of an image, or of a channel, are kept."""

from __future__ import annotations

from typing import Any

import click
from msgspec import UNSET

from cloner_cli.api import Query, segment
from cloner_cli.checking import Checks
from cloner_cli.commands import COUNT, Group, command, dry_run_option
from cloner_cli.invocation import Invocation
from cloner_cli.text import columns, moment
from cloner_core.admin.keeping import KeepChange, KeepView
from cloner_core.image.keeping import KeepRule

_COUNT = click.IntRange(1, 10_000)


@click.group("image", cls=Group)
def image_command() -> None:
    """What is set for an image; its versions are shown by image-list and image-details."""


@command("keep", example="cloner image keep --image debian --last 5 --monthly 12", group=image_command)
@click.option("--image", "-i", default="", metavar="NAME", help="Image the rule is of; alone it shows its rules.")
@click.option("--channel", "-c", default="", metavar="CHANNEL", help="Rule for what this channel has pointed to.")
@click.option("--last", type=_COUNT, metavar="N", help="Keep the newest N versions.")
@click.option("--daily", type=_COUNT, metavar="N", help="Keep the last version of each of the last N days with one.")
@click.option("--weekly", type=_COUNT, metavar="N", help="The same for weeks, from Monday on.")
@click.option("--monthly", type=_COUNT, metavar="N", help="The same for months.")
@click.option("--yearly", type=_COUNT, metavar="N", help="The same for years.")
@click.option("--remove", is_flag=True, help="Remove the rule: what no rule speaks of is kept.")
@click.option("--revision", type=COUNT, metavar="N", help="Only if the rule still has this; 0: only if there is none.")
@dry_run_option
def image_keep(
    run: Invocation, *, image: str, channel: str, remove: bool, revision: int | None, dry_run: bool, **counts: Any
) -> None:
    """Set, show or remove a keep rule. The rule takes the place of the one there was; nothing is removed by setting it.

    Each number counts on its own, and a version that several keep is kept once. Days, weeks, months and years are
    those of UTC; one without a version does not count. The newest version and what a channel, a node or a task uses
    are always kept. 'cloner store plan-gc' shows what the rules let go, 'cloner store gc --apply-keep-rules' removes
    it.
    """
    rule = KeepRule(**{name: count or 0 for name, count in counts.items()})
    checks = Checks()
    if remove and not rule.is_empty:
        checks.wrong.append("--remove and numbers: one or the other")
    if not image and (channel or remove or not rule.is_empty):
        checks.wrong.append("--image says which image the rule is of")
    checks.exist(run.api, image=image, version=channel or None)
    checks.settle()
    if rule.is_empty and not remove:
        _show(run, image, channel)
        return
    path, query = f"/v1/images/{segment(image)}/keep-rule", _query(channel, dry_run=dry_run)
    named = f"{image}:{channel}" if channel else image
    if remove:
        view = run.api.delete(path, KeepView, query | {"revision": revision})
        run.result(view, lambda: f"{'would remove' if dry_run else 'removed'} the rule of {named}: {view.rule}")
        return
    change = KeepChange(rule=rule, revision=UNSET if revision is None else revision)
    view = run.api.patch(path, KeepView, change, query)
    run.result(view, lambda: f"{named} {'would keep' if dry_run else 'keeps'} {view.rule}")


def _query(channel: str, *, dry_run: bool) -> dict[str, str | int | bool | None]:
    return {"channel": channel, "dry_run": dry_run}


def _show(run: Invocation, image: str, channel: str) -> None:
    query: Query = {"image": image}
    views = [view for view in run.api.get("/v1/keep-rules", list[KeepView], query) if channel in ("", view.channel)]
    rows = [
        (f"{v.image}:{v.channel}" if v.channel else v.image, v.rule, moment(v.changed_s), v.author, v.revision)
        for v in views
    ]
    run.result(views, lambda: columns(("OF", "KEEPS", "SINCE", "AUTHOR", "REVISION"), rows))
