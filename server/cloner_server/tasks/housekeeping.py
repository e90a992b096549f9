"""What happens because time passes: attempts are lost, boots are overdue, claims expire.

Confirmations that are overdue are `cloner_server.confirming`'s: it looks for the clone first.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from cloner_core.admin.tasks import TaskState
from cloner_core.sightings import boot_verdict
from cloner_server.state import events, sightings
from cloner_server.state import tasks as rows
from cloner_server.state.database import Act
from cloner_server.state.tables import attempts, tasks
from cloner_server.tasks.claims import remove_expired
from cloner_server.tasks.endings import fail_boot, forsake
from cloner_server.tasks.rules import Rules, silence_s
from cloner_server.tasks.states import Happening

SCRIPT_SERVED = "boot agent"
"""The event of a boot script with a claim."""


def is_due(connection: Connection, now_s: float, rules: Rules, started_s: float) -> bool:
    """Return whether `tidy` would do anything; a look without a write transaction."""
    return any(found(connection, now_s, rules, started_s) for found in (_lost, _forsaken, _unbooted))


def tidy(connection: Connection, act: Act, rules: Rules, started_s: float) -> None:
    """Do what is due. Deadlines count from `started_s` at the earliest: while the server was away nobody could call."""
    for silent in _lost(connection, act.now_s, rules, started_s):
        task = rows.get_task(connection, silent.task_id)
        rows.happen(connection, act, task, Happening.SILENCE, why=f"no heartbeat for {silent.most_s:.0f} s")
    for silent in _forsaken(connection, act.now_s, rules, started_s):
        forsake(connection, act, rows.get_task(connection, silent.task_id), silent.attempt_id)
    for task_id in _unbooted(connection, act.now_s, rules, started_s):
        task = rows.get_task(connection, task_id)
        seen = sightings.list_sightings(connection, task.node)
        scripts = events.count_since(connection, f"node/{task.node}", SCRIPT_SERVED, task.changed_s)
        verdict = boot_verdict(seen, task.changed_s, scripts)
        fail_boot(connection, act, task, message=verdict.message, hint=verdict.hint)
    remove_expired(connection, act.now_s)


@dataclass(frozen=True, slots=True)
class _Silent:
    task_id: int
    attempt_id: str
    most_s: float  # that it may be silent


def _lost(connection: Connection, now_s: float, rules: Rules, started_s: float) -> list[_Silent]:
    return _silent(connection, TaskState.RUNNING, now_s, rules, started_s)


def _forsaken(connection: Connection, now_s: float, rules: Rules, started_s: float) -> list[_Silent]:
    return _silent(connection, TaskState.ABORTED, now_s, rules, started_s)


def _silent(connection: Connection, state: TaskState, now_s: float, rules: Rules, started_s: float) -> list[_Silent]:
    """Return the live attempts of tasks in `state` that are silent for too long."""
    if started_s > now_s - rules.lost_s:
        return []
    silent = attempts.c.state == "live", attempts.c.beat_s <= now_s - rules.lost_s
    query = select(attempts.c.id, attempts.c.task, attempts.c.beat_s, attempts.c.beat_every_s)
    query = query.join(tasks, attempts.c.task == tasks.c.id).where(tasks.c.state == state.value, *silent)
    found = [(row, silence_s(rules, row.beat_every_s)) for row in connection.execute(query)]
    return [_Silent(row.task, row.id, most_s) for row, most_s in found if max(row.beat_s, started_s) <= now_s - most_s]


def _unbooted(connection: Connection, now_s: float, rules: Rules, started_s: float) -> list[int]:
    if started_s > now_s - rules.boot_s:
        return []
    # A booting task changed last when its node fetched the first boot script.
    late = tasks.c.state == TaskState.BOOTING.value, tasks.c.changed_s <= now_s - rules.boot_s
    return list(connection.execute(select(tasks.c.id).where(*late)).scalars())
