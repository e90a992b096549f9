"""`cloner netboot`: what a node gets at its next network boot."""

from __future__ import annotations

from collections.abc import Sequence

import click
import msgspec

from cloner_cli.checking import Checks
from cloner_cli.commands import command, dry_run_option, max_option, some_nodes_option, yes_option
from cloner_cli.deploy import agree, describe, intended
from cloner_cli.invocation import Invocation
from cloner_cli.machine import machine_table
from cloner_cli.text import columns
from cloner_core.admin.deploying import DeployRequest, Intent, NetbootRequest
from cloner_core.admin.nodes import MachineRequest, MachineView, NodeView

_VALUES = click.Choice(["local", "cloner", "cloner-multicast", "capture", "discover", "rescue"])


@command("netboot", example="cloner netboot --nodes node[01-02] --set cloner")
@some_nodes_option
@click.option(
    "--mac", "macs", multiple=True, metavar="MAC", help="A machine that is no node; for discover. Repeatable."
)
@click.option("--set", "value", type=_VALUES, required=True, help="What the nodes get.")
@max_option
@yes_option
@dry_run_option
def netboot_command(
    run: Invocation,
    *,
    nodes: tuple[str, ...],
    macs: tuple[str, ...],
    value: str,
    limit: int,
    yes: bool,
    dry_run: bool,
) -> None:
    """Set the field netboot of nodes: all of them, or none.

    `local` sends a node on to its disk. `cloner` arms a task from the node's own image and layout, as `cloner
    deploy` does: it shows what will be destroyed, and asks. `capture` arms a task that captures one node at rest as
    the next version of its own image, as `cloner capture` does. `cloner-multicast` has nodes wait for a multicast
    session with their disks untouched (cloner multicast-status, cloner multicast-image). `discover` has the machine
    tell its hardware once and start from its disk again; it writes nothing. `--mac` allows that to a machine that
    is no node yet (cloner machine list).
    """
    checks = Checks()
    if macs:
        _machines(run, checks, macs, value, nodes=nodes, is_dry=dry_run)
        return
    names = tuple(checks.nodes(run.api, nodes))
    checks.exist(run.api, nodes=names)
    checks.settle()
    shown, intents = None, list[Intent]()
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
    told = describe(intents) if dry_run and intents else columns(("NODE", "NETBOOT"), rows)
    run.result(views, lambda: told)


def _machines(
    run: Invocation, checks: Checks, macs: Sequence[str], value: str, *, nodes: Sequence[str], is_dry: bool
) -> None:
    if nodes:
        checks.wrong.append("--nodes and --mac: one or the other")
    if value not in ("discover", "local"):
        checks.wrong.append(f"--set {value}: a machine that is no node gets 'discover' or 'local'")
    known = checks.macs(macs)
    checks.settle()
    asked = MachineRequest(known, "discover" if value == "discover" else "local", is_dry)
    views = run.api.post("/v1/machines", list[MachineView], asked)
    run.result(views, lambda: machine_table(views))
