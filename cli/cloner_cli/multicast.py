"""Multicast sessions at the command line: who waits, and the sessions there are; `multicastimage` arms one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

import click

from cloner_cli.api import ANSWER_S, segment
from cloner_cli.asking import ask
from cloner_cli.checking import known_nodes
from cloner_cli.commands import command, dry_run_option, some_nodes_option, timeout_option, yes_option
from cloner_cli.invocation import Invocation
from cloner_cli.multicastview import (
    SessionTicker,
    live_view,
    seat_counts,
    session_line,
    session_text,
    sessions_table,
    waiting_table,
)
from cloner_cli.progress import Ticker
from cloner_cli.task import task_table
from cloner_cli.waiting import Show, require_done, wait_for
from cloner_core.admin.sessions import SessionView, WaitingView
from cloner_core.admin.tasks import TaskView
from cloner_core.errors import InvalidError, UnreachableError

_SESSIONS = "/v1/multicast/sessions"
_GLANCE_S = 2.0  # for what is shown beside the tasks: the wait for those must end in time
watch_option = click.option(
    "--watch", is_flag=True, help="Show the session, live, until every node is done or has failed."
)


@command("multicast-status", example="cloner multicast-status --nodes node[01-40]")
@some_nodes_option
def multicast_status_command(run: Invocation, *, nodes: tuple[str, ...]) -> None:
    """Show which nodes wait for a multicast session, and which are on their way to one.

    A node waits when it was netbooted with `cloner netboot --set cloner-multicast` and nothing was armed for it: it
    tells its hardware and that it is there, and writes to no disk. What is wrong with one stands in its note.
    """
    names = known_nodes(run.api, nodes)
    views = run.api.get("/v1/multicast/waiting", list[WaitingView])
    shown = [view for view in views if names is None or view.node in names]
    if not shown:
        run.say("no node waits (cloner netboot --nodes SET --set cloner-multicast has some wait)")
    run.result(shown, lambda: waiting_table(shown) if shown else "")


@command("multicast-list", example="cloner multicast-list --all")
@click.option("--all", "is_all", is_flag=True, help="Those that are over, too.")
def multicast_list_command(run: Invocation, *, is_all: bool) -> None:
    """List the sessions that are queued or run."""
    views = run.api.get(_SESSIONS, list[SessionView], {"all": is_all})
    run.result(views, lambda: sessions_table(views))


@command("multicast-show", example="cloner multicast-show 3 --watch")
@click.argument("session_id", metavar="SESSION")
@watch_option
@timeout_option
def multicast_show_command(run: Invocation, session_id: str, *, watch: bool, timeout_s: float | None) -> None:
    """Show one session: what was sent, how much of it was repair, and what became of each node.

    Repair is the part of what was sent that mends losses; a node's loss is what it missed lately. A node that is on
    `https` takes what it misses over HTTPS; what it had stays. With --watch the exit status is 20 plus the number of
    nodes that did not end well, 9 after the timeout.
    """
    require_watch(timeout_s, watch=watch)
    view = get_session(run, session_id)
    if watch:
        watch_session(run, view.id, [seat.task for seat in view.seats], timeout_s)
        return
    run.result(view, lambda: session_text(view))


@command("multicast-stop", example="cloner multicast-stop 3")
@click.argument("session_id", metavar="SESSION")
@yes_option
@dry_run_option
def multicast_stop_command(run: Invocation, session_id: str, *, yes: bool, dry_run: bool) -> None:
    """Stop a session. Its nodes go on over HTTPS: `cloner task abort` is what ends their tasks."""
    view = _steer(run, session_id, "stop", is_dry=True)
    if not dry_run:
        was = get_session(run, session_id)
        ask(run, f"Stop session {was.id} ({was.state}: {seat_counts(was)})? Its nodes go on over HTTPS.", is_yes=yes)
        view = _steer(run, session_id, "stop", is_dry=False)
    run.result(view, lambda: f"session {view.id} would be {view.state}" if dry_run else session_line(view))


@command("multicast-start", example="cloner multicast-start 3")
@click.argument("session_id", metavar="SESSION")
@dry_run_option
def multicast_start_command(run: Invocation, session_id: str, *, dry_run: bool) -> None:
    """Begin a session with the first node that hears; those that come later get what they missed at the end."""
    view = _steer(run, session_id, "start", is_dry=dry_run)
    verb = "would begin" if dry_run else "begins"
    run.result(view, lambda: f"session {view.id} ({view.state}) {verb} with whoever hears")


def get_session(run: Invocation, session_id: str, *, within_s: float = ANSWER_S) -> SessionView:
    """Return a session as it is."""
    return run.api.get(f"{_SESSIONS}/{segment(session_id)}", SessionView, within_s=within_s)


def require_watch(timeout_s: float | None, *, watch: bool) -> None:
    """Raise InvalidError for a --timeout of nothing."""
    if timeout_s is not None and not watch:
        raise InvalidError("--timeout says how long --watch waits, and --watch is not given")


@dataclass(frozen=True)
class _Watched:
    """A session as it ended, with the tasks of its nodes."""

    session: SessionView
    tasks: list[TaskView]


def watch_session(run: Invocation, session_id: str, tasks: Sequence[str], timeout_s: float | None) -> None:
    """Show a session until its `tasks` have ended, then the tasks; raises when one did not end well.

    A session that was stopped or has failed is no failure by itself: its nodes go on over HTTPS.
    """
    ended = wait_for(run, tasks, timeout_s, partial(_display, session_id))
    view = get_session(run, session_id)
    run.say(session_line(view))
    run.result(_Watched(view, ended), lambda: task_table(ended))
    require_done(ended)


@contextmanager
def _display(session_id: str, run: Invocation) -> Iterator[Show]:
    """Show the session beside the tasks; it stays as it was last seen while the server is away."""
    seen = get_session(run, session_id)

    def look() -> SessionView:
        nonlocal seen
        with suppress(UnreachableError):  # the tasks are asked for as well: there it is noticed, and how long it lasts
            seen = get_session(run, session_id, within_s=_GLANCE_S)
        return seen

    if not run.world.is_live():
        ticker, of_session = Ticker(), SessionTicker()

        def say(tasks: Sequence[TaskView], now_s: float) -> None:
            for line in (*of_session.lines(look(), now_s), *ticker.lines(tasks, now_s)):
                run.say(line)

        yield say
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), auto_refresh=False) as live:
        yield lambda tasks, _: live.update(live_view(look(), tasks), refresh=True)


def _steer(run: Invocation, session_id: str, verb: str, *, is_dry: bool) -> SessionView:
    return run.api.post(f"{_SESSIONS}/{segment(session_id)}/{verb}", SessionView, query={"dry_run": is_dry})
