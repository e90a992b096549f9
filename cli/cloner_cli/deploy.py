"""`cloner deploy`: arms one task a node, after saying what it destroys."""

from __future__ import annotations

from collections.abc import Sequence

import click
import msgspec

from cloner_cli.asking import ask, ask_count
from cloner_cli.checking import Checks
from cloner_cli.commands import (
    command,
    dry_run_option,
    image_option,
    layout_option,
    max_option,
    nodes_option,
    timeout_option,
    yes_option,
)
from cloner_cli.invocation import Invocation
from cloner_cli.task import task_table
from cloner_cli.text import printable
from cloner_cli.waiting import require_done, wait_for
from cloner_core.admin.deploying import DeployRequest, Intent
from cloner_core.sizes import format_bytes


@command("deploy", example="cloner deploy --nodes node[01-02] --image debian --disklayout debian --wait")
@nodes_option
@image_option
@layout_option
@max_option
@click.option("--new-identity", is_flag=True, help="A new machine-id and new host keys; the former are gone.")
@click.option("--wait", is_flag=True, help="Show progress until every node is done or failed.")
@timeout_option
@yes_option
@dry_run_option
def deploy_command(
    run: Invocation,
    *,
    nodes: tuple[str, ...],
    image: str,
    disklayout: str,
    limit: int,
    new_identity: bool,
    wait: bool,
    timeout_s: float | None,
    yes: bool,
    dry_run: bool,
) -> None:
    """Destroy the disks of nodes and put an image on them at their next network boot.

    Image and layout are each node's own unless named. A node cloned again keeps its machine-id and host keys unless
    --new-identity renews them; the vault holds the new ones from the moment the node is armed.
    All nodes are armed, or none.
    With --json the result is the list of what was armed; with --wait, the list of tasks as they ended.
    """
    checks = Checks()
    names = checks.nodes(run.api, nodes)
    name, version = checks.image(image)
    checks.exist(run.api, nodes=names, image=name, version=version, layout=disklayout)
    checks.settle("nothing was armed")
    wanted = DeployRequest(nodes=tuple(names), image=name, version=version, layout=disklayout, limit=limit)
    wanted = msgspec.structs.replace(wanted, new_identity=new_identity)
    armed = arm(run, wanted, is_dry=dry_run, is_yes=yes)
    if dry_run or not wait:
        text = "" if dry_run else "\n".join(f"{intent.node}: task {intent.task_id}" for intent in armed)
        run.result(armed, lambda: text or describe(armed))
        return
    tasks = wait_for(run, [intent.task_id for intent in armed], timeout_s)
    run.result(tasks, lambda: task_table(tasks))
    require_done(tasks)


def arm(run: Invocation, wanted: DeployRequest, *, is_dry: bool, is_yes: bool) -> list[Intent]:
    """Show what `wanted` would destroy, ask, and arm it; returns what was armed, or in a dry run would be."""
    intents = intended(run, wanted, is_dry=is_dry)
    if is_dry:
        return intents
    agree(run, intents, wanted.limit, is_yes=is_yes)
    fixed = msgspec.structs.replace(
        wanted,
        # The version that was shown, though a newer one may be published meanwhile.
        version=intents[0].version if wanted.image else wanted.version,
        limit=max(wanted.limit, len(intents)),
        shown=tuple(intents),
    )
    return run.api.post("/v1/deploy", list[Intent], fixed)


def intended(run: Invocation, wanted: DeployRequest, *, is_dry: bool) -> list[Intent]:
    """Return what the server says `wanted` would do; nothing changes."""
    # The count is asked for here, where a person can type it; a dry run keeps the limit as the server sees it.
    limit = wanted.limit if is_dry else max(wanted.limit, len(wanted.nodes))
    trial = msgspec.structs.replace(wanted, limit=limit, dry_run=True)
    return run.api.post("/v1/deploy", list[Intent], trial)


def agree(run: Invocation, intents: Sequence[Intent], limit: int, *, is_yes: bool) -> None:
    """Show what is lost and have it agreed to."""
    run.say(describe(intents))
    ask_count(run, len(intents), limit)
    count = len(intents)
    ask(run, f"Destroy the disks of {count} node{'s' * (count != 1)}?", is_yes=is_yes)


def describe(intents: Sequence[Intent]) -> str:
    """Return what would be done to each node, with every disk that would be destroyed."""
    lines = []
    for intent in intents:
        image, layout = f"{intent.image}:{intent.version}", f"{intent.layout}:{intent.layout_number}"
        lines.append(f"{intent.node}: {image} with layout {layout}")
        for disk in intent.disks:
            named = f"{disk.path} ({disk.model} serial {disk.serial or 'none'}, {format_bytes(disk.size_bytes)})"
            lines.append(f"  DESTROYS {named}: {'; '.join(disk.holds) or 'nothing recognised on it'}")
            if disk.keeps:
                lines.append(f"  keeps of it {'; '.join(disk.keeps)}")
        if intent.scripts:
            lines.append(f"  scripts: set {intent.scripts} of {intent.image}")
        if intent.is_new_identity:
            lines.append("  NEW IDENTITY: machine-id and SSH host keys are replaced")
        if intent.note:
            lines.append(f"  {intent.note}")
    return "\n".join(printable(line) for line in lines)
