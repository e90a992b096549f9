"""`cloner model`: how machines of one make boot, told once for all of them."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from cloner_cli.api import segment
from cloner_cli.checking import fold_nodes
from cloner_cli.commands import COUNT, METHODS, ORDERS, UNSET_WORD, Group, command, dry_run_option, said_setting
from cloner_cli.invocation import Invocation
from cloner_cli.text import columns
from cloner_core.admin.nodes import ModelPatch, ModelView
from cloner_core.errors import InvalidError


@click.group("model", cls=Group)
def model_command() -> None:
    """Hardware models: rules by what firmware says a machine is. A node's own setting wins over its model's."""


@command("list", example="cloner model list", group=model_command)
def model_list(run: Invocation) -> None:
    """List every model and the nodes that take something from it."""
    views = run.api.get("/v1/models", list[ModelView])
    titles = ("MODEL", "VENDOR", "PRODUCT", "LOCAL METHOD", "BOOT ORDER", "NODES")
    rows = [(v.name, v.vendor, v.product, v.local_method, v.boot_order, fold_nodes(v.nodes)) for v in views]
    run.result(views, lambda: columns(titles, rows))


@command(
    "set", example="cloner model set r640 --product 'PowerEdge R640' --boot-order local-first", group=model_command
)
@click.argument("name", metavar="MODEL")
@click.option("--vendor", metavar="PATTERN", help="Shell pattern over the DMI vendor: 'Dell*'.")
@click.option("--product", metavar="PATTERN", help="Shell pattern over the DMI product: 'PowerEdge R6*'.")
@click.option("--local-method", type=METHODS, help=f"How its machines are sent to their disk; {UNSET_WORD}: not said.")
@click.option("--boot-order", type=ORDERS, help=f"What comes first after a deploy; {UNSET_WORD}: not said.")
@click.option("--revision", type=COUNT, metavar="N", help="Only if the model still has this revision; 0: only if new.")
@dry_run_option
def model_set(run: Invocation, name: str, *, dry_run: bool, **given: Any) -> None:
    """Make or change a model; what is not named stays.

    Patterns are compared with what `cloner node facts` shows under dmi. Of several models that match, the one whose
    patterns have the most plain characters decides.
    """
    for field in ("local_method", "boot_order"):
        given[field] = said_setting(given[field])
    changes = {field: value for field, value in given.items() if value is not None}
    if not changes:
        raise InvalidError("nothing is said of the model", hint="cloner model set --help")
    patch = msgspec.convert(changes, ModelPatch)
    view = run.api.patch(f"/v1/models/{segment(name)}", ModelView, patch, {"dry_run": dry_run})
    told = f" for {fold_nodes(view.nodes)}" if view.nodes else ", no node has told that it is one"
    run.result(view, lambda: f"model {view.name} {'would be' if dry_run else 'is'} set{told}")


@command("remove", example="cloner model remove r640", group=model_command)
@click.argument("name", metavar="MODEL")
@dry_run_option
def model_remove(run: Invocation, name: str, *, dry_run: bool) -> None:
    """Remove a model; its nodes take what another one, or the site, has."""
    view = run.api.delete(f"/v1/models/{segment(name)}", ModelView, {"dry_run": dry_run})
    run.result(view, lambda: f"{'would remove' if dry_run else 'removed'} {view.name}")
