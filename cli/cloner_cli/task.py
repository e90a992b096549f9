"""`cloner task`: pieces of work on nodes."""

from __future__ import annotations

from collections.abc import Sequence

import click

from cloner_cli.api import segment
from cloner_cli.commands import Group, command, dry_run_option, yes_option
from cloner_cli.invocation import Invocation
from cloner_cli.progress import has_ended, standing
from cloner_cli.text import columns, fields, moment, printable
from cloner_cli.waiting import require_done, wait_for
from cloner_core.admin import LogEntry, TaskView

_FOLLOW_EVERY_S = 0.5


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
    last = 0
    while True:
        # Asked for first: what is logged before the task ends must not be missed.
        is_over = not follow or has_ended(_get(run, task_id))
        entries = run.api.get(f"/v1/tasks/{segment(task_id)}/log", list[LogEntry], {"after": last})
        if not follow:
            run.result(entries, lambda shown=entries: "\n".join(map(_log_line, shown)))  # type: ignore[misc]
            return
        for entry in entries:
            run.result_line(entry, lambda shown=entry: _log_line(shown))  # type: ignore[misc]
            last = entry.id
        if is_over and not entries:
            return
        run.world.sleep(0 if entries else _FOLLOW_EVERY_S)


@command("wait", example="cloner task wait 12 13 --timeout 600", group=task_command)
@click.argument("task_ids", metavar="TASK...", nargs=-1, required=True)
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait so long.")
def task_wait(run: Invocation, task_ids: tuple[str, ...], timeout_s: float | None) -> None:
    """Show progress until every task has ended; exit status 1 when one did not end well, 9 after the timeout."""
    tasks = wait_for(run, list(dict.fromkeys(task_ids)), timeout_s)
    run.result(tasks, lambda: task_table(tasks))
    require_done(tasks)


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


@command("retry", example="cloner task retry 12", group=task_command)
@click.argument("task_id", metavar="TASK")
@yes_option
@dry_run_option
def task_retry(run: Invocation, task_id: str, yes: bool, dry_run: bool) -> None:
    """Queue a failed, frozen or aborted task once more; it destroys the disks of its node again."""
    from cloner_cli.asking import ask

    task = _get(run, task_id)
    if not dry_run:
        ask(run, f"Deploy {task.image}:{task.version} to {task.node} again?", is_yes=yes)
    _steer(run, task_id, "retry", dry_run)


def task_table(tasks: Sequence[TaskView]) -> str:
    """Return tasks as columns."""
    rows = [(t.id, t.node, f"{t.image}:{t.version}", t.attempts, moment(t.changed_s), standing(t)) for t in tasks]
    return columns(("TASK", "NODE", "IMAGE", "ATTEMPTS", "CHANGED", "STATE"), rows)


def task_fields(task: TaskView) -> str:
    """Return one task as text."""
    shown: list[tuple[str, object]] = [
        ("task", task.id),
        ("node", task.node),
        ("state", standing(task)),
        ("image", f"{task.image}:{task.version}"),
        ("digest", task.digest),
        ("layout", f"{task.layout}:{task.layout_number}"),
        ("attempts", task.attempts),
        ("created", f"{moment(task.created_s)} by {task.author}"),
        ("changed", moment(task.changed_s)),
    ]
    if task.failure is not None:
        shown += [("failure", task.failure.message), ("hint", task.failure.hint)]
        shown.append(("disks", "old content lost" if task.failure.is_destroyed else "not touched"))
    return fields(shown)


def _get(run: Invocation, task_id: str) -> TaskView:
    return run.api.get(f"/v1/tasks/{segment(task_id)}", TaskView)


def _steer(run: Invocation, task_id: str, verb: str, is_dry: bool) -> None:
    task = run.api.post(f"/v1/tasks/{segment(task_id)}/{verb}", TaskView, query={"dry_run": is_dry})
    run.result(task, lambda: f"task {task.id} {'would be' if is_dry else 'is'} {task.state}")


def _log_line(entry: LogEntry) -> str:
    return printable(f"{moment(entry.time_s)} {entry.level:7} {entry.text}")
