"""Waiting for tasks with live progress. Asks the server again and again: a restart of it goes unnoticed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from cloner_cli.api import ANSWER_S, segment
from cloner_cli.invocation import Invocation
from cloner_cli.progress import Ticker, has_ended, share, standing, why_failed
from cloner_core.admin.tasks import TaskState, TaskView
from cloner_core.errors import ClonerError, ExitStatus, UnreachableError, failed_status

if TYPE_CHECKING:
    from rich.table import Table

_LOOK_EVERY_S = 0.5
_AWAY_S = 120.0  # a server may restart, or be replaced by a newer one
_LEAST_S = 1.0  # for an answer: `--timeout 0` looks once

Show = Callable[[Sequence[TaskView], float], None]
Display = Callable[[Invocation], AbstractContextManager[Show]]


class WaitTimeoutError(ClonerError):
    """Waited as long as asked."""

    exit_status = ExitStatus.TIMEOUT


class TasksFailedError(ClonerError):
    """Some task waited for did not end in `done`; the exit status tells how many."""

    def __init__(self, message: str, count: int, *, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.exit_status = failed_status(count)


def wait_for(
    run: Invocation, ids: Sequence[str], timeout_s: float | None, display: Display | None = None
) -> list[TaskView]:
    """Return the tasks when all have ended; progress goes to stderr meanwhile, as `display` has it.

    Raises WaitTimeoutError after `timeout_s` (None: never), UnreachableError when the server stays away.
    """
    begun_s = seen_s = run.world.monotonic()
    until_s = math.inf if timeout_s is None else begun_s + timeout_s
    tasks: dict[str, TaskView] = {}
    with _saying_what_goes_on(run, ids), (display or display_tasks)(run) as show:
        while True:
            try:
                # A server that hangs must not keep us beyond the time that was asked for.
                left_s = max(_LEAST_S, until_s - run.world.monotonic())
                _look(run, ids, tasks, within_s=min(ANSWER_S, left_s))
                seen_s = run.world.monotonic()
            except UnreachableError:
                # The first answer must come: only a server that was there once is waited for.
                if not tasks or run.world.monotonic() - seen_s > _AWAY_S:
                    raise
            known = [tasks[task_id] for task_id in ids if task_id in tasks]
            show(known, run.world.monotonic())
            if len(known) == len(ids) and all(map(has_ended, known)):
                return known
            if run.world.monotonic() >= until_s:
                going = [task for task in known if not has_ended(task)]
                raise WaitTimeoutError(
                    "\n  - ".join(
                        (f"{len(going)} of {len(ids)} tasks go on:", *(f"{t.node}: {standing(t)}" for t in going))
                    ),
                    hint=f"cloner task wait {' '.join(task.id for task in going)}",
                )
            run.world.sleep(max(0.0, min(_LOOK_EVERY_S, until_s - run.world.monotonic())))


@contextmanager
def _saying_what_goes_on(run: Invocation, ids: Sequence[str]) -> Iterator[None]:
    """On Ctrl-C say that it ended the waiting alone: who pressed it may have meant the deploy."""
    try:
        yield
    except KeyboardInterrupt:
        named = " ".join(ids)
        run.say(
            f"interrupted; the work goes on. Wait again: cloner task wait {named}; end it: cloner task abort {named}"
        )
        raise


def require_done(tasks: Sequence[TaskView]) -> None:
    """Raise TasksFailedError with stage, cause and hint of every task that is not done."""
    bad = [task for task in tasks if task.state is not TaskState.DONE]
    if bad:
        headline = f"{len(bad)} of {len(tasks)} tasks did not end well:"
        hint = f"by cause, with what mends it: cloner failures; more: cloner task log {bad[0].id}"
        raise TasksFailedError("\n  - ".join((headline, *map(why_failed, bad))), len(bad), hint=hint)


def _look(run: Invocation, ids: Sequence[str], tasks: dict[str, TaskView], *, within_s: float) -> None:
    """Bring `tasks` up to date: one request for what lives, one more for each that has just ended."""
    live: dict[str, TaskView] = {}
    if len(ids) > 1:
        found = run.api.get("/v1/tasks", list[TaskView], {"live": True, "limit": 10_000}, within_s=within_s)
        live = {task.id: task for task in found}
    for task_id in ids:
        if task_id in live:
            tasks[task_id] = live[task_id]
        elif task_id not in tasks or not has_ended(tasks[task_id]) or len(ids) == 1:
            tasks[task_id] = run.api.get(f"/v1/tasks/{segment(task_id)}", TaskView, within_s=within_s)


@contextmanager
def display_tasks(run: Invocation) -> Iterator[Show]:
    """Show tasks alone: a table that is redrawn on a terminal, lines elsewhere."""
    if not run.world.is_live():
        ticker = Ticker()

        def say(tasks: Sequence[TaskView], now_s: float) -> None:
            for line in ticker.lines(tasks, now_s):
                run.say(line)

        yield say
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), auto_refresh=False) as live:
        yield lambda tasks, _: live.update(live_table(tasks), refresh=True)


def live_table(tasks: Sequence[TaskView]) -> Table:
    """Return what a terminal shows: a line a node, with a bar where the whole is known."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for task in tasks:
        done = share(task)
        bar = ProgressBar(total=1.0, completed=done, width=24) if done is not None else Text("")
        table.add_row(Text(task.node), bar, Text(standing(task)))
    return table
