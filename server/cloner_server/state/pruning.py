"""Old events and log lines are removed, a batch a transaction, so that neither years nor hostile hosts fill the disk.

Never touches nodes, tasks, receipts or the vault: what was done stays on record.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, delete, func, select

from cloner_server.state.tables import events, task_log

_DAY_S = 86400.0
_BATCH = 5000


@dataclass(frozen=True, slots=True)
class Keep:
    """How much of each kind is kept.

    By age a row goes only when `least` newer ones remain: a clock that stands years ahead empties nothing.
    """

    days: float = 365.0  # events
    events: int = 500_000
    alarm_days: float = 1825.0
    alarms: int = 50_000
    network_days: float = 30.0  # events that anybody on the wire can cause
    network: int = 100_000
    log_days: float = 90.0
    log_lines: int = 2_000_000
    least: int = 10_000


def prune(connection: Connection, now_s: float, keep: Keep, batch: int = _BATCH) -> int:
    """Remove up to `batch` rows of each kind and return how many were removed; 0: there is nothing more to do."""
    kinds = (
        (events.c.is_alarm, keep.alarms, keep.alarm_days),
        (~events.c.is_alarm & events.c.is_network, keep.network, keep.network_days),
        (~events.c.is_alarm & ~events.c.is_network, keep.events, keep.days),
    )
    removed = 0
    for kind, most, days in kinds:
        cut = _cut(connection, kind, most), _cut(connection, kind, min(keep.least, most))
        is_old = (events.c.id <= cut[1]) & (events.c.time_s < now_s - days * _DAY_S)
        going = select(events.c.id).where(kind, (events.c.id <= cut[0]) | is_old).limit(batch)
        removed += connection.execute(delete(events).where(events.c.id.in_(going))).rowcount
    newest = connection.execute(select(func.max(task_log.c.id))).scalar_one() or 0
    is_old = (task_log.c.id <= newest - keep.least) & (task_log.c.time_s < now_s - keep.log_days * _DAY_S)
    going = select(task_log.c.id).where((task_log.c.id <= newest - keep.log_lines) | is_old).limit(batch)
    return removed + connection.execute(delete(task_log).where(task_log.c.id.in_(going))).rowcount


def _cut(connection: Connection, kind: ColumnElement[bool], most: int) -> int:
    """Return the id of the newest event of a kind that `most` newer ones follow; 0 when there are no so many."""
    query = select(events.c.id).where(kind).order_by(events.c.id.desc()).offset(most).limit(1)
    return connection.execute(query).scalar_one_or_none() or 0
