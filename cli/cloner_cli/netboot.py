"""`cloner netboot`: what a node gets at its next network boot."""

from __future__ import annotations

import click
import msgspec

from cloner_cli.checking import Checks
from cloner_cli.commands import command, dry_run_option, max_option, nodes_option, yes_option
from cloner_cli.deploy import agree, intended
from cloner_cli.invocation import Invocation
from cloner_cli.text import columns
from cloner_core.admin import DeployRequest, NetbootRequest, NodeView

_VALUES = click.Choice(["local", "cloner", "cloner-multicast", "capture", "discover", "rescue"])


@command("netboot", example="cloner netboot --nodes node[01-02] --set cloner")
@nodes_option
@click.option("--set", "value", type=_VALUES, required=True, help="What the nodes get.")
@max_option
@yes_option
@dry_run_option
def netboot_command(
    run: Invocation, *, nodes: tuple[str, ...], value: str, limit: int, yes: bool, dry_run: bool
) -> None:
    """Set the field netboot of nodes: all of them, or none.

    `local` sends a node on to its disk. `cloner` arms a task from the node's own image and layout, as `cloner deploy`
    does: it shows what will be destroyed, and asks.
    """
    checks = Checks()
    names = tuple(checks.nodes(run.api, nodes))
    checks.exist(run.api, nodes=names)
    checks.settle()
    shown = None
    if value == "cloner":
        intents = intended(run, DeployRequest(nodes=names, limit=limit), is_dry=dry_run)
        if not dry_run:
            agree(run, intents, limit, is_yes=yes)
            limit, shown = max(limit, len(names)), tuple(intents)
    else:
        limit = max(limit, len(names))  # nothing is destroyed by it
    asked = {"nodes": names, "value": value, "limit": limit, "dry_run": dry_run, "shown": shown}
    request = msgspec.convert(asked, NetbootRequest)
    views = run.api.post("/v1/netboot", list[NodeView], request)
    rows = [(view.name, view.netboot) for view in views]
    run.result(views, lambda: "" if dry_run else columns(("NODE", "NETBOOT"), rows))
