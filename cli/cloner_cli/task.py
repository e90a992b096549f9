"""`cloner task`: pieces of work on nodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from cloner_cli.api import segment
from cloner_cli.commands import (
    FilePath,
    Group,
    command,
    dry_run_option,
    max_option,
    some_nodes_option,
    timeout_option,
    yes_option,
)
from cloner_cli.invocation import Invocation
from cloner_cli.progress import has_ended, standing, what_of
from cloner_cli.reporting import give
from cloner_cli.text import columns, fields, moment, printable
from cloner_cli.waiting import require_done, wait_for
from cloner_core.admin.tasks import LogEntry, TaskView
from cloner_core.bundle import BundleView, render_bundle
from cloner_core.errors import ConflictError, InvalidError
from cloner_core.messages import Cause

_FOLLOW_EVERY_S = 0.5
_CONFIRMED = {"": "not yet", "none": "not asked for"}


@click.group("task", cls=Group)
def task_command() -> None:
    """See and steer the work on nodes."""


@command("list", example="cloner task list --live", group=task_command)
@click.option("--node", default="", metavar="NODE", help="Only of this node.")
@click.option("--live", is_flag=True, help="Only those that have not ended.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=200, show_default=True, help="At most so many.")
def task_list(run: Invocation, node: str, live: bool, limit: int) -> None:
    """List tasks, the newest first."""
    tasks = run.api.get("/v1/tasks", list[TaskView], {"node": node, "live": live, "limit": limit})
    run.result(tasks, lambda: task_table(tasks))


@command("show", example="cloner task show 12", group=task_command)
@click.argument("task_id", metavar="TASK")
def task_show(run: Invocation, task_id: str) -> None:
    """Show one task."""
    task = _get(run, task_id)
    run.result(task, lambda: task_fields(task))


@command("log", example="cloner task log 12 --follow", group=task_command)
@click.argument("task_id", metavar="TASK")
@click.option("--follow", "-F", is_flag=True, help="Go on until the task ends.")
def task_log(run: Invocation, task_id: str, follow: bool) -> None:
    """Print what the node logged. With --follow and --json, one line of JSON an entry."""
    if not follow:
        entries = list[LogEntry]()
        while more := _log_after(run, task_id, entries):
            entries += more
        run.result(entries, lambda: "\n".join(map(_log_line, entries)))
        return
    shown = list[LogEntry]()  # the last that were
    while True:
        # Asked for first: what is logged before the task ends must not be missed.
        is_over = has_ended(_get(run, task_id))
        entries = _log_after(run, task_id, shown)
        for entry in entries:
            run.result_line(entry, lambda entry=entry: _log_line(entry))  # type: ignore[misc]
        shown = entries or shown
        if is_over and not entries:
            return
        run.world.sleep(0 if entries else _FOLLOW_EVERY_S)


def _log_after(run: Invocation, task_id: str, known: Sequence[LogEntry]) -> list[LogEntry]:
    """Return what follows the last that is known: a part, if that is much; [] when that is all there is."""
    after = known[-1].id if known else 0
    return run.api.get(f"/v1/tasks/{segment(task_id)}/log", list[LogEntry], {"after": after})


@command("wait", example="cloner task wait 12 13 --timeout 600", group=task_command)
@click.argument("task_ids", metavar="TASK...", nargs=-1, required=True)
@timeout_option
def task_wait(run: Invocation, task_ids: tuple[str, ...], timeout_s: float | None) -> None:
    """Show progress until every task has ended; exit status 20 plus the number of those that did not end well, 9
    after the timeout.
    """
    _wait(run, list(dict.fromkeys(task_ids)), timeout_s)


@command("abort", example="cloner task abort 12", group=task_command)
@click.argument("task_id", metavar="TASK")
@yes_option
@dry_run_option
def task_abort(run: Invocation, task_id: str, yes: bool, dry_run: bool) -> None:
    """Stop a task. What it has destroyed by then stays destroyed."""
    from cloner_cli.asking import ask

    task = _get(run, task_id)
    if not dry_run:
        ask(run, f"Abort task {task.id} ({task.node}: {printable(standing(task))})?", is_yes=yes)
    _steer(run, task_id, "abort", dry_run)


@command("retry", example="cloner task retry --failed --cause network --nodes node[01-16]", group=task_command)
@click.argument("task_id", metavar="[TASK]", default="")
@click.option("--failed", is_flag=True, help="The failed tasks of many nodes instead of one task.")
@some_nodes_option
@click.option("--cause", type=click.Choice([cause.value for cause in Cause]), help="Only those of this cause.")
@max_option
@click.option("--wait", is_flag=True, help="Show progress until every task has ended.")
@timeout_option
@yes_option
@dry_run_option
def task_retry(
    run: Invocation,
    *,
    task_id: str,
    failed: bool,
    nodes: tuple[str, ...],
    cause: str | None,
    limit: int,
    wait: bool,
    timeout_s: float | None,
    yes: bool,
    dry_run: bool,
) -> None:
    """Queue a failed, frozen or aborted task once more, or with --failed every node's newest task if it failed.

    Version and layout are those the task was made with. It destroys the disks of its node again. With --wait, the exit
    status is 20 plus the number of tasks that did not end well, 9 after the timeout.
    """
    from cloner_cli.asking import ask

    if bool(task_id) == failed or (not failed and (nodes or cause)):
        raise InvalidError("want either TASK, or --failed with --nodes and --cause as you like")
    if failed:
        from cloner_cli.failures import retry_failed

        tasks = retry_failed(run, nodes, cause=cause or "", limit=limit, is_yes=yes, is_dry=dry_run)
        if wait and not dry_run:
            _wait(run, [task.id for task in tasks], timeout_s)
            return
        run.result(tasks, lambda: "\n".join(_now(task, dry_run) for task in tasks))
        return
    task = _get(run, task_id)
    if not dry_run:
        ask(run, f"{_again(task)} again?", is_yes=yes)
    if wait and not dry_run:
        run.api.post(f"/v1/tasks/{segment(task_id)}/retry", TaskView)
        _wait(run, [task.id], timeout_s)
        return
    _steer(run, task_id, "retry", dry_run)


@command("bundle", example="cloner task bundle 12 --to bundle-12.txt", group=task_command)
@click.argument("task_id", metavar="TASK")
@click.option("--to", "path", type=FilePath(), help="Write it to this new file.")
def task_bundle(run: Invocation, task_id: str, path: Path | None) -> None:
    """Show what the node saw of its failure: logs, disks, partition tables and boot entries before and after, links.

    Secrets are left out. With --json it is JSON, in the file too.
    """
    view = run.api.get(f"/v1/tasks/{segment(task_id)}/bundle", BundleView)
    text = msgspec.json.format(msgspec.json.encode(view)).decode() if run.is_json else _bundle_text(view)
    if path is None:
        give(text)
        return
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(f"{text}\n")
    except FileExistsError as fault:
        raise ConflictError(f"{path} exists already", hint="choose another name, or remove it first") from fault
    run.say(f"written to {path}")


def task_table(tasks: Sequence[TaskView]) -> str:
    """Return tasks as columns."""
    rows = [(t.id, t.node, what_of(t), t.attempts, moment(t.changed_s), standing(t)) for t in tasks]
    return columns(("TASK", "NODE", "IMAGE", "ATTEMPTS", "CHANGED", "STATE"), rows)


def task_fields(task: TaskView) -> str:
    """Return one task as text."""
    shown: list[tuple[str, object]] = [
        ("task", task.id),
        ("node", task.node),
        ("state", standing(task)),
        ("kind", task.kind),
        *_deployed(task),
        ("attempts", task.attempts),
        ("created", f"{moment(task.created_s)} by {task.author}"),
        ("changed", moment(task.changed_s)),
        ("confirmed", _CONFIRMED.get(task.confirmed_by, f"by {task.confirmed_by}")),
    ]
    if task.failure is not None:
        shown += [("failure", task.failure.message), ("hint", task.failure.hint)]
        shown.append(("disks", "old content lost" if task.failure.is_destroyed else "not touched"))
    return fields(shown)


def _deployed(task: TaskView) -> list[tuple[str, object]]:
    if task.kind == "erase":
        return []
    if task.kind == "capture":
        published = f"{task.image}:{task.version}" if task.version else f"{task.image}, not yet"
        return [("published", published), ("digest", task.digest), ("layout", task.layout)]
    return [
        ("image", what_of(task)),
        ("digest", task.digest),
        ("layout", f"{task.layout}:{task.layout_number}"),
        ("scripts", f"set {task.scripts}" if task.scripts else ""),
        ("session", task.session),
    ]


def _again(task: TaskView) -> str:
    if task.kind == "deploy":
        return f"Deploy {what_of(task)} to {task.node}"
    return f"Erase {task.node}" if task.kind == "erase" else f"Capture {task.node} as {task.image}"


def _get(run: Invocation, task_id: str) -> TaskView:
    return run.api.get(f"/v1/tasks/{segment(task_id)}", TaskView)


def _wait(run: Invocation, ids: Sequence[str], timeout_s: float | None) -> None:
    """Show progress until all have ended, then the tasks; raises when one did not end well."""
    tasks = wait_for(run, ids, timeout_s) if ids else []
    run.result(tasks, lambda: task_table(tasks))
    require_done(tasks)


def _steer(run: Invocation, task_id: str, verb: str, is_dry: bool) -> None:
    task = run.api.post(f"/v1/tasks/{segment(task_id)}/{verb}", TaskView, query={"dry_run": is_dry})
    run.result(task, lambda: _now(task, is_dry))


def _now(task: TaskView, is_dry: bool) -> str:
    return f"task {task.id} {'would be' if is_dry else 'is'} {task.state}"


def _bundle_text(view: BundleView) -> str:
    return printable(render_bundle(view), keep="\n\t").rstrip()


def _log_line(entry: LogEntry) -> str:
    return printable(f"{moment(entry.time_s)} {entry.level:7} {entry.text}")
