"""`cloner failures`: what is not well, grouped by cause and machine, with the line that mends each group.

Also queues the failed of a set again (`cloner task retry --failed`).
"""

from __future__ import annotations

from collections.abc import Sequence

from cloner_cli.asking import ask, ask_count
from cloner_cli.checking import fold_nodes, known_nodes
from cloner_cli.commands import command, some_nodes_option
from cloner_cli.invocation import Invocation
from cloner_cli.progress import standing, what_of
from cloner_cli.text import fields, printable
from cloner_core.admin.tasks import TaskState, TaskView
from cloner_core.errors import failed_status
from cloner_core.failures import FailureGroup, FailuresReport, NotWell, RetryRequest, report_failures


@command("failures", example="cloner failures --nodes node[001-400]")
@some_nodes_option
def failures_command(run: Invocation, *, nodes: tuple[str, ...]) -> int:
    """Group the failed nodes by cause and model, each group with one line that mends it.

    A node counts by its newest task. Exit status: 0 when no node is failed or frozen, else 20 plus their number
    (120: a hundred or more).
    """
    report = report_failures(find(run, nodes), fold_nodes)
    run.result(report, lambda: report_text(report))
    return failed_status(report.failed + report.frozen_count)


def find(run: Invocation, sets: Sequence[str]) -> list[NotWell]:
    """Return what is not well among the nodes of `sets`, among all when there are none."""
    names = known_nodes(run.api, sets)
    found = run.api.get("/v1/failures", list[NotWell])
    return found if names is None else [one for one in found if one.task.node in names]


def retry_failed(
    run: Invocation, sets: Sequence[str], *, cause: str, limit: int, is_yes: bool, is_dry: bool
) -> list[TaskView]:
    """Queue the failed tasks of `sets` again, those of `cause` only when it is given; asks first."""
    wanted = [
        one.task
        for one in find(run, sets)
        if one.task.state is TaskState.FAILED and one.task.failure and cause in ("", one.task.failure.cause.value)
    ]
    if not wanted:
        run.say("no task of these failed" if cause else "no task failed")
        return []
    if not is_dry:
        run.say("\n".join(printable(f"{task.node}: {what_of(task)}, {standing(task)}") for task in wanted))
        ask_count(run, len(wanted), limit)
        what = "the task" if len(wanted) == 1 else f"the tasks of {len(wanted)} nodes"
        ask(run, f"Begin {what} again?", is_yes=is_yes)
        limit = max(limit, len(wanted))
    request = RetryRequest(tasks=tuple(task.id for task in wanted), limit=limit, dry_run=is_dry)
    return run.api.post("/v1/failures/retry", list[TaskView], request)


def report_text(report: FailuresReport) -> str:
    """Return the report as paragraphs, one a group."""
    parts = [_group_text(group) for group in report.groups]
    if report.frozen:
        why = "two machines claimed the task; 'cloner events' has which, then: cloner task retry"
        parts.append(f"frozen: {report.frozen}\n  {why}")
    if report.lost:
        parts.append(f"lost: {report.lost}\n  no heartbeat; comes back by itself when the machine does")
    return "\n\n".join(parts) or "nothing failed"


def _group_text(group: FailureGroup) -> str:
    count = f"{group.count} node{'s' * (group.count != 1)}"
    place = f" behind {group.switch}" if group.switch else ""
    head = f"{count}: {group.cause} in {', '.join(group.stages)}, on {group.model or 'unknown model'}{place}"
    shown: list[tuple[str, object]] = [("nodes", group.nodes), ("seen", group.message), ("hint", group.hint)]
    shown.append(("disks", f"{group.destroyed} of {group.count} have lost their old content"))
    if group.bundles:
        shown.append(("more", f"cloner task bundle {group.bundles[0]}"))
    shown.append(("mend", group.mend))
    return printable(head) + "\n" + "\n".join(f"  {line}" for line in fields(shown).splitlines())
