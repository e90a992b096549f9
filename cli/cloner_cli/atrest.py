"""`cloner capture`: arms a task that captures a node at rest; its system does not run, and its disks are only read."""

from __future__ import annotations

import re
from typing import Any

import click
import msgspec

from cloner_cli.asking import ask
from cloner_cli.captureoptions import agree, disklayout_option, exclude_paths_option, given_options
from cloner_cli.checking import Checks
from cloner_cli.commands import command, dry_run_option, timeout_option, yes_option
from cloner_cli.detected import exclude_devices_option, update_conflict_option
from cloner_cli.invocation import Invocation
from cloner_cli.task import task_table
from cloner_cli.text import printable
from cloner_cli.waiting import require_done, wait_for
from cloner_core.admin.deploying import CaptureIntent, CaptureRequest
from cloner_core.atrest import CaptureOrder
from cloner_core.errors import InvalidError
from cloner_core.image.options import Conflict, settle
from cloner_core.sizes import format_bytes

_ROOT = re.compile(r"(UUID|LABEL|PARTUUID)=\S.*|/dev/\S+")


@command("capture", example="cloner capture --node golden --image debian --disklayout debian --wait")
@click.option("--node", "-n", required=True, metavar="NODE", help="The node whose disks are captured.")
@click.option("--image", "-i", required=True, metavar="NAME", help="The image that gets a new version.")
@disklayout_option
@exclude_paths_option
@exclude_devices_option
@update_conflict_option
@click.option("--message", "-m", default="", metavar="TEXT", help="What is new.")
@click.option("--update", "is_update", is_flag=True, help="Only where the image is there already.")
@click.option(
    "--root-device",
    default="",
    metavar="DEVICE",
    help="Where several systems lie on the disks: UUID=…, LABEL=…, PARTUUID=… of the one that is meant.",
)
@click.option(
    "--allow-secrets",
    is_flag=True,
    help="Take private keys, passwords and tokens that are found; they are told, and refused without this.",
)
@click.option("--wait", is_flag=True, help="Show progress until the node is done or failed.")
@timeout_option
@yes_option
@dry_run_option
def capture_command(run: Invocation, **words: Any) -> None:
    """Capture a node at rest, at its next network boot, and publish it as the first, or next, version of an image.

    The node boots the agent, which reads its disks and writes to none of them: arrays, volumes and filesystems are
    opened read-only, and what a running node refuses is refused here too. Where the system was not shut down properly
    its filesystems are not captured; start it once and shut it down. Nobody is asked while it runs: secrets want
    --allow-secrets, another layout than the one kept --update-conflict, several systems --root-device; without them
    the task fails and says so, and the node starts from its disk again.

    Layout and what is left out are kept with the image, as with new-image.
    """
    image, node = str(words["image"]), str(words["node"])
    given = given_options(words["disklayout"], words["exclude_paths"], words["excludes"])
    checks = Checks()
    name, version = checks.image(image)
    if version is not None:
        checks.wrong.append(f"--image {image}: want the name of an image, its next version is made")
    if words["root_device"] and not _ROOT.fullmatch(words["root_device"]):
        checks.wrong.append(f"--root-device {words['root_device']}: want UUID=…, LABEL=…, PARTUUID=… or /dev/…")
    try:
        settle(None, given, Conflict.COMMANDLINE, can_ask=False)
    except InvalidError as fault:
        checks.wrong += fault.faults
    checks.exist(run.api, nodes=(node,), image=name if words["is_update"] else "")
    checks.settle("nothing was armed")
    conflict, is_dry, is_yes = Conflict(words["conflict"]), bool(words["dry_run"]), bool(words["yes"])
    agreed = agree(run, name, given, conflict, is_yes=is_yes, is_dry=is_dry)
    order = CaptureOrder(
        image=name,
        options=agreed.options,
        keeps_options=agreed.is_new,
        options_revision=agreed.revision,
        message=words["message"],
        allow_secrets=words["allow_secrets"],
        conflict=conflict.value,
        root_device=words["root_device"],
    )
    wanted = CaptureRequest(node=node, order=order, is_update=words["is_update"], dry_run=True)
    intent = run.api.post("/v1/capture", CaptureIntent, wanted)
    if is_dry:
        run.result(intent, lambda: describe(intent))
        return
    run.say(describe(intent))
    if run.world.can_ask():
        ask(run, f"Capture {node} at its next network boot?", is_yes=is_yes)
    armed = run.api.post("/v1/capture", CaptureIntent, msgspec.structs.replace(wanted, dry_run=False, shown=intent))
    if not words["wait"]:
        run.result(armed, lambda: f"{armed.node}: task {armed.task_id}")
        return
    tasks = wait_for(run, [armed.task_id], words["timeout_s"])
    run.result(tasks, lambda: task_table(tasks))
    require_done(tasks)


def describe(intent: CaptureIntent) -> str:
    """Return what would be captured, and how."""
    order = intent.order
    after = f"after {intent.base}" if intent.base else "the first of it"
    lines = [f"{intent.node}: capture at rest as image {order.image}, {after}; layout {order.options.layout}"]
    for disk in intent.disks:
        named = f"{disk.path} ({disk.model} serial {disk.serial or 'none'}, {format_bytes(disk.size_bytes)})"
        lines.append(f"  reads {named}: {'; '.join(disk.holds) or 'nothing recognised on it'}")
    if order.root_device:
        lines.append(f"  root: {order.root_device}")
    if order.options.exclude_paths:
        lines.append(f"  leaves out {', '.join(order.options.exclude_paths)}")
    lines.append("  writes to no disk; the identity of the node and volatile directories are left out")
    lines += [f"  note: {note}" for note in intent.notes]
    return "\n".join(printable(line) for line in lines)
