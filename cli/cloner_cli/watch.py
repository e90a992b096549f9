"""`cloner watch`: everything that is going on, live. Looks again and again: a restart of the server goes unnoticed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from cloner_cli.api import segment
from cloner_cli.checking import known_nodes
from cloner_cli.commands import command, some_nodes_option
from cloner_cli.console import warn_of_default
from cloner_cli.invocation import Invocation
from cloner_cli.progress import Ticker, has_ended
from cloner_cli.task import task_table
from cloner_cli.waiting import live_table, require_done
from cloner_core.admin.nodes import NodeView
from cloner_core.admin.tasks import TaskState, TaskView
from cloner_core.errors import UnreachableError

if TYPE_CHECKING:
    from rich.console import Group

_LOOK_EVERY_S = 1.0
_AWAY_S = 120.0
_MOST_TASKS = 10_000
_ORDER = (
    TaskState.FAILED,
    TaskState.FROZEN,
    TaskState.ABORTED,
    TaskState.LOST,
    TaskState.RUNNING,
    TaskState.BOOTING,
    TaskState.QUEUED,
    TaskState.WAITING,
    TaskState.UNCONFIRMED,
    TaskState.DONE,
)

Show = Callable[[Sequence[TaskView]], None]


@command("watch", example="cloner watch --nodes node[001-400]")
@some_nodes_option
@click.option("--follow", "-F", is_flag=True, help="Go on with tasks to come, until Ctrl-C.")
def watch_command(run: Invocation, *, nodes: tuple[str, ...], follow: bool) -> None:
    """Show the live tasks until all have ended: a table on a terminal, elsewhere a line a change.

    What is wrong stands first. With --json, one line of JSON a task that changed. Exit status: 0 when all that was
    watched is done, else 20 plus the number that is not (120: a hundred or more).
    """
    names = known_nodes(run.api, nodes)
    views = run.api.get("/v1/nodes", list[NodeView])
    warn_of_default(run, [view for view in views if names is None or view.name in names])
    tasks: dict[str, TaskView] = {}
    seen_s: float | None = None  # when the server answered last
    with _display(run) as show:
        while True:
            try:
                _look(run, names, tasks)
                seen_s = run.world.monotonic()
            except UnreachableError:
                # The first answer must come: only a server that was there once is waited for.
                if seen_s is None or run.world.monotonic() - seen_s > _AWAY_S:
                    raise
            show(worst_first(tasks.values()))
            if not follow and all(map(has_ended, tasks.values())):
                break
            run.world.sleep(_LOOK_EVERY_S)
    ended = worst_first(tasks.values())
    if run.world.is_live() and not run.is_json and ended:
        run.result(ended, lambda: task_table(ended))
    if not ended:
        run.say("no task is live")
    require_done(ended)


def worst_first(tasks: Iterable[TaskView]) -> list[TaskView]:
    """Return tasks, those that want a person first and those that are done last, by node."""
    return sorted(tasks, key=lambda task: (_ORDER.index(task.state), task.node, task.id))


def counts_line(tasks: Sequence[TaskView]) -> str:
    """Return "3 running, 1 failed"."""
    counts = Counter(task.state for task in tasks)
    return ", ".join(f"{counts[state]} {state}" for state in _ORDER if counts[state]) or "no task is live"


def live_view(tasks: Sequence[TaskView]) -> Group:
    """Return what a terminal shows: the counts, then a line a task."""
    from rich.console import Group
    from rich.text import Text

    return Group(Text(counts_line(tasks)), live_table(tasks))


def _look(run: Invocation, names: frozenset[str] | None, tasks: dict[str, TaskView]) -> None:
    """Bring `tasks` up to date: what lives in one request, what has just ended in one more each."""
    live = run.api.get("/v1/tasks", list[TaskView], {"live": True, "limit": _MOST_TASKS})
    tasks.update({task.id: task for task in live if names is None or task.node in names})
    alive = {task.id for task in live}
    for task_id in [task.id for task in tasks.values() if task.id not in alive and not has_ended(task)]:
        tasks[task_id] = run.api.get(f"/v1/tasks/{segment(task_id)}", TaskView)


@contextmanager
def _display(run: Invocation) -> Iterator[Show]:
    if run.is_json or not run.world.is_live():
        yield _lines(run)
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), auto_refresh=False) as live:
        yield lambda tasks: live.update(live_view(tasks), refresh=True)


def _lines(run: Invocation) -> Show:
    ticker, said = Ticker(), dict[str, TaskView]()

    def say(tasks: Sequence[TaskView]) -> None:
        if not run.is_json:
            for line in ticker.lines(tasks, run.world.monotonic()):
                click.echo(line)
            return
        for task in tasks:
            if said.get(task.id) != task:
                said[task.id] = task
                run.result_line(task, lambda: "")

    return say
