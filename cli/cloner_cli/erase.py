"""`cloner erase`: arms a task that erases the disks of nodes, after saying what is lost."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

import click
import msgspec

from cloner_cli.asking import ask, ask_count
from cloner_cli.checking import Checks
from cloner_cli.commands import (
    command,
    dry_run_option,
    max_option,
    nodes_option,
    timeout_option,
    yes_option,
)
from cloner_cli.invocation import Invocation
from cloner_cli.task import task_table
from cloner_cli.text import printable
from cloner_cli.waiting import require_done, wait_for
from cloner_core.admin.deploying import EraseIntent, EraseRequest
from cloner_core.erasing.plan import describe_ways
from cloner_core.erasing.words import MAX_PASSES, EraseOrder, MethodWord, ThenWord, VerifyWord
from cloner_core.errors import InvalidError
from cloner_core.layout import Selector
from cloner_core.layout.reading import Reader
from cloner_core.layout.selecting import read_selector
from cloner_core.sizes import format_bytes

_METHODS = click.Choice(["auto", "sanitize", "format", "ata-secure", "discard", "overwrite"])
_TERM = re.compile(r"\s*([a-z_]+)\s*(>=|<=|!=|=)\s*(.*?)\s*")
_KEYS = {("size", ">="): "size_min", ("size", "<="): "size_max"}
_FLAGS = {"yes": True, "no": False}


@command("erase", example="cloner erase --nodes node[01-02] --disks 'serial=S4X*' --wait")
@nodes_option
@click.option(
    "--disks",
    multiple=True,
    metavar="SELECTOR",
    help="Disks like this: serial=S4X*,size>=1TB. Repeatable; a disk that fits any of them is erased.",
)
@click.option("--all-disks", is_flag=True, help="Every disk but removable, USB and protected ones.")
@click.option("--method", type=_METHODS, default="auto", show_default=True, help="auto asks each disk what it can.")
@click.option("--passes", type=click.IntRange(1, MAX_PASSES), default=1, show_default=True, help="Of an overwrite.")
@click.option(
    "--verify",
    type=click.Choice(["sample", "full"]),
    default="sample",
    show_default=True,
    help="Read places of each disk afterwards, or all of it.",
)
@click.option(
    "--then",
    type=click.Choice(["off", "reboot", "hold"]),
    default="off",
    show_default=True,
    help="What a node does when it is erased.",
)
@max_option
@click.option("--wait", is_flag=True, help="Show progress until every node is done or failed.")
@timeout_option
@yes_option
@dry_run_option
def erase_command(
    run: Invocation,
    *,
    nodes: tuple[str, ...],
    disks: tuple[str, ...],
    all_disks: bool,
    method: str,
    passes: int,
    verify: str,
    then: str,
    limit: int,
    wait: bool,
    timeout_s: float | None,
    yes: bool,
    dry_run: bool,
) -> None:
    """Erase disks of nodes at their next network boot, and prove it; nothing of them can be brought back.

    Shows the disks by the last inventory, what is on them and how each is erased, and asks. Only these disks are
    erased: a machine whose disks are others by then is refused. Terms of a selector: serial, model, wwn, bus, path,
    controller, bay (patterns; != for not), size>=, size<=, rotational=yes|no.
    A task ends as done, with a signed receipt, only when every disk was shown to be erased.
    """
    checks = Checks()
    names = checks.nodes(run.api, nodes)
    selectors = []
    for text in disks:
        try:
            selectors.append(parse_selector(text))
        except InvalidError as fault:
            checks.wrong.append(fault.message)
    if bool(disks) == all_disks:
        checks.wrong.append("want either --disks SELECTOR or --all-disks")
    if passes > 1 and method not in ("auto", "overwrite"):
        checks.wrong.append(f"--passes is for an overwrite, not for --method {method}")
    checks.exist(run.api, nodes=names)
    checks.settle("nothing was armed")
    order = EraseOrder(
        select=tuple(selectors),
        method=cast(MethodWord, method),
        passes=passes,
        verify=cast(VerifyWord, verify),
        then=cast(ThenWord, then),
    )
    armed = _arm(run, names, order, limit=limit, is_dry=dry_run, is_yes=yes)
    if dry_run or not wait:
        text = "" if dry_run else "\n".join(f"{intent.node}: task {intent.task_id}" for intent in armed)
        run.result(armed, lambda: text or describe(armed, order))
        return
    tasks = wait_for(run, [intent.task_id for intent in armed], timeout_s)
    run.result(tasks, lambda: task_table(tasks))
    require_done(tasks)


def _arm(
    run: Invocation, names: Sequence[str], order: EraseOrder, *, limit: int, is_dry: bool, is_yes: bool
) -> list[EraseIntent]:
    # The count is asked for here, where a person can type it; a dry run keeps the limit as the server sees it.
    most = limit if is_dry else max(limit, len(names))
    wanted = EraseRequest(nodes=tuple(names), order=order, limit=most, dry_run=True)
    intents = run.api.post("/v1/erase", list[EraseIntent], wanted)
    if is_dry:
        return intents
    run.say(describe(intents, order))
    ask_count(run, len(intents), limit)
    what = _counted(sum(len(intent.disks) for intent in intents), "disk")
    if not all(intent.is_known for intent in intents):
        what = "the disks" if len(intents) > 1 or order.select else "all disks"
    ask(run, f"Erase {what} of {_counted(len(intents), 'node')} for good?", is_yes=is_yes)
    fixed = msgspec.structs.replace(wanted, dry_run=False, shown=tuple(intents))
    return run.api.post("/v1/erase", list[EraseIntent], fixed)


def parse_selector(text: str) -> Selector:
    """Return the selector that `text` describes: terms with commas between them, named as in a layout.

    Raises InvalidError naming each fault.
    """
    document: dict[str, Any] = {}
    faults = []
    for term in text.split(","):
        match = _TERM.fullmatch(term)
        if match is None:
            faults.append(f"'{term}' is no term; want NAME=PATTERN, size>=SIZE or size<=SIZE")
            continue
        name, sign, value = match.groups()
        key = _KEYS.get((name, sign), name)
        if sign in (">=", "<=") and key == name:
            faults.append(f"'{term}': {sign} is for the size alone")
        elif key in document:
            faults.append(f"'{term}': {name} is given twice")
        elif not value or name == "pick":
            faults.append(f"'{term}' does not say which disks")
        elif sign == "!=":
            document[key] = {"none": [value]}
        else:
            document[key] = _FLAGS.get(value, value) if name == "rotational" else value
    reader = Reader()
    selector = read_selector(reader, document, "disks")
    if faults := [*faults, *reader.faults]:
        raise InvalidError(f"'{text}' does not select disks", faults=faults)
    return selector


def describe(intents: Sequence[EraseIntent], order: EraseOrder) -> str:
    """Return what would be erased on each node, and how."""
    lines = []
    for intent in intents:
        lines.append(f"{intent.node}: erase {_counted(len(intent.disks), 'disk')}" if intent.is_known else intent.node)
        for disk in intent.disks:
            named = f"{disk.path} ({disk.model} serial {disk.serial or 'none'}, {format_bytes(disk.size_bytes)})"
            lines.append(f"  ERASES {named} by {describe_ways(disk.ways, order.passes)}")
            lines.append(f"    {'; '.join(disk.holds) or 'nothing recognised on it'}")
        lines += [f"  leaves {one}" for one in intent.left]
        lines += [f"  note: {note}" for note in intent.notes]
    return "\n".join(printable(line) for line in lines)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
