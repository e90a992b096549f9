"""`cloner group`: what is set for many nodes at once. Who is in a group, the nodes say (`cloner node set --groups`)."""

from __future__ import annotations

import click

from cloner_cli.api import segment
from cloner_cli.checking import fold_nodes
from cloner_cli.commands import Group, command, dry_run_option
from cloner_cli.invocation import Invocation
from cloner_cli.text import columns, fields
from cloner_core.admin.nodes import GroupPatch, GroupView


@click.group("group", cls=Group)
def group_command() -> None:
    """Groups of nodes: @NAME in every node set."""


@command("list", example="cloner group list", group=group_command)
def group_list(run: Invocation) -> None:
    """List every group that has a node or is protected."""
    views = run.api.get("/v1/groups", list[GroupView])
    rows = [(v.name, len(v.nodes), "yes" if v.is_protected else "no", fold_nodes(v.nodes)) for v in views]
    run.result(views, lambda: columns(("GROUP", "COUNT", "PROTECTED", "NODES"), rows))


@command("show", example="cloner group show rack1", group=group_command)
@click.argument("name", metavar="GROUP")
def group_show(run: Invocation, name: str) -> None:
    """Show one group."""
    view = run.api.get(f"/v1/groups/{segment(name)}", GroupView)
    shown: list[tuple[str, object]] = [
        ("group", view.name),
        ("nodes", fold_nodes(view.nodes)),
        ("count", len(view.nodes)),
        ("protected", "yes" if view.is_protected else "no"),
    ]
    run.result(view, lambda: fields(shown))


@command("protect", example="cloner group protect storage", group=group_command)
@click.argument("name", metavar="GROUP")
@dry_run_option
def group_protect(run: Invocation, name: str, *, dry_run: bool) -> None:
    """Refuse every command that would destroy or remove a node of GROUP, also of nodes to come."""
    _set(run, name, GroupPatch(is_protected=True), "protected", is_dry=dry_run)


@command("unprotect", example="cloner group unprotect storage", group=group_command)
@click.argument("name", metavar="GROUP")
@dry_run_option
def group_unprotect(run: Invocation, name: str, *, dry_run: bool) -> None:
    """Take the protection of GROUP away; nodes that are protected themselves stay so."""
    _set(run, name, GroupPatch(is_protected=False), "no longer protected", is_dry=dry_run)


def _set(run: Invocation, name: str, patch: GroupPatch, state: str, *, is_dry: bool) -> None:
    view = run.api.patch(f"/v1/groups/{segment(name)}", GroupView, patch, {"dry_run": is_dry})
    count = f"{len(view.nodes)} node{'s' * (len(view.nodes) != 1)}"
    run.result(view, lambda: f"group {view.name} ({count}) {'would be' if is_dry else 'is'} {state}")
