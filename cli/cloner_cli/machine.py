"""`cloner machine`: machines that are no nodes, and what they told of themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import msgspec

from cloner_cli.api import segment
from cloner_cli.checking import Checks
from cloner_cli.commands import Group, command, dry_run_option
from cloner_cli.invocation import Invocation
from cloner_cli.text import columns, moment
from cloner_core.admin.nodes import MachineView
from cloner_core.sizes import format_bytes


@click.group("machine", cls=Group)
def machine_command() -> None:
    """Machines that are no nodes yet; `cloner netboot --mac MAC --set discover` allows an inventory."""


@command("list", example="cloner machine list", group=machine_command)
def machine_list(run: Invocation) -> None:
    """List machines whose inventory was allowed. One that becomes a node takes its inventory along."""
    views = run.api.get("/v1/machines", list[MachineView])
    run.result(views, lambda: machine_table(views))


@command("facts", example="cloner machine facts 52:54:00:12:34:56", group=machine_command)
@click.argument("mac", metavar="MAC")
def machine_facts(run: Invocation, mac: str) -> None:
    """Print what a machine told about itself, as JSON; `cloner plan --facts` takes it."""
    facts = run.api.get(f"/v1/machines/{segment(_one(mac))}/facts", dict[str, Any])
    run.result(facts, lambda: msgspec.json.format(msgspec.json.encode(facts), indent=2).decode())


@command("forget", example="cloner machine forget 52:54:00:12:34:56", group=machine_command)
@click.argument("mac", metavar="MAC")
@dry_run_option
def machine_forget(run: Invocation, mac: str, *, dry_run: bool) -> None:
    """Remove a machine and its inventory."""
    known = _one(mac)
    left = run.api.delete(f"/v1/machines/{segment(known)}", list[MachineView], {"dry_run": dry_run})
    run.result(left, lambda: f"{'would forget' if dry_run else 'forgot'} {known}")


def machine_table(views: Sequence[MachineView]) -> str:
    """Return machines as text."""
    titles = ("MAC", "NETBOOT", "MODEL", "SERIAL", "MEMORY", "DISKS", "SEEN")
    rows = [
        (
            view.mac,
            view.netboot,
            f"{view.vendor} {view.product}".strip(),
            view.serial,
            format_bytes(view.memory_bytes) if view.seen_s is not None else "",
            view.disks if view.seen_s is not None else "",
            moment(view.seen_s),
        )
        for view in views
    ]
    return columns(titles, rows)


def _one(mac: str) -> str:
    checks = Checks()
    known = checks.macs([mac])
    checks.settle()
    return known[0]
