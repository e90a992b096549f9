"""A step of the machine's clock: deadlines move with it, so that each keeps the time it had left.

What is written for good (events, receipts, when a task was made) keeps the time it was given.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Connection, func, select, update

from cloner_core.admin.tasks import TaskState
from cloner_server.state import events
from cloner_server.state.database import Act
from cloner_server.state.tables import (
    attempts,
    claims,
    discover_claims,
    leases,
    session_seats,
    sessions,
    sightings,
    tasks,
    tokens,
    waiting,
)
from cloner_server.state.tables import events as event_rows

MIN_STEP_S = 2.0
"""A smaller one (a leap second) is followed without a word."""

_TIMED = (TaskState.BOOTING.value, TaskState.UNCONFIRMED.value)
"""States with a deadline that counts from their task's `changed_s`."""

_CLAIM_S = 3600.0  # the longest that a claim may live, whatever the settings
_LEASE_S = 3600.0  # … and a lease


def shift(connection: Connection, act: Act, step_s: float) -> None:
    """Move every deadline that runs by `step_s`; `act` has the time after the step."""
    unconfirmed = select(tasks.c.id).where(tasks.c.state == TaskState.UNCONFIRMED.value)
    for table, columns, running in (
        (attempts, (attempts.c.beat_s, attempts.c.rival_s), attempts.c.state == "live"),
        (attempts, (attempts.c.ended_s,), attempts.c.task.in_(unconfirmed)),  # what is seen later counts
        (claims, (claims.c.minted_s, claims.c.expires_s), claims.c.expires_s > 0),
        (discover_claims, (discover_claims.c.minted_s, discover_claims.c.expires_s), discover_claims.c.expires_s > 0),
        (tasks, (tasks.c.changed_s,), tasks.c.state.in_(_TIMED)),
        (leases, (leases.c.expires_s,), leases.c.expires_s > 0),
        (sessions, (sessions.c.gathered_s,), sessions.c.ended_s.is_(None)),
        (session_seats, (session_seats.c.seated_s,), session_seats.c.seated_s.is_not(None)),
        (waiting, (waiting.c.since_s, waiting.c.seen_s), waiting.c.since_s.is_not(None)),
        (tokens, (tokens.c.created_s, tokens.c.expires_s, tokens.c.used_s), tokens.c.expires_s > 0),
        (sightings, (sightings.c.time_s,), sightings.c.time_s > 0),  # compared with the tasks' times
    ):
        values = {column.name: column + step_s for column in columns}
        connection.execute(update(table).where(running).values(values))
    way = "forward" if step_s > 0 else "back"
    why = "deadlines were moved by as much, nothing is lost; if it comes again, look at the machine's clock and NTP"
    told: dict[str, Any] = {"step_s": round(step_s, 3), "way": way, "why": why}
    events.record(connection, act, "site", "clock stepped", alarm=True, **told)


def rein_in(connection: Connection, act: Act) -> None:
    """At the start: take back times that lie ahead, for the clock was put back while the server was away.

    Without it an attempt that beat "in a year" could not be taken over for a year; a claim or token would live as long.
    """
    ahead: list[tuple[Column[float], float]] = [
        (attempts.c.beat_s, act.now_s),
        (attempts.c.rival_s, act.now_s),
        (attempts.c.ended_s, act.now_s),
        (claims.c.minted_s, act.now_s),
        (claims.c.expires_s, act.now_s + _CLAIM_S),
        (discover_claims.c.minted_s, act.now_s),
        (discover_claims.c.expires_s, act.now_s + _CLAIM_S),
        (leases.c.expires_s, act.now_s + _LEASE_S),
        (sightings.c.time_s, act.now_s),
        (sessions.c.gathered_s, act.now_s),
        (session_seats.c.seated_s, act.now_s),
        (waiting.c.since_s, act.now_s),
        (waiting.c.seen_s, act.now_s),
        (tokens.c.used_s, act.now_s),
    ]
    changed = 0
    for column, most_s in ahead:
        changed += connection.execute(
            update(column.table).where(column > most_s).values({column.name: most_s})
        ).rowcount
    timed = tasks.c.state.in_(_TIMED), tasks.c.changed_s > act.now_s
    changed += connection.execute(update(tasks).where(*timed).values(changed_s=act.now_s)).rowcount
    lifetime_s = tokens.c.expires_s - tokens.c.created_s
    made_ahead = update(tokens).where(tokens.c.created_s > act.now_s)
    changed += connection.execute(made_ahead.values(created_s=act.now_s, expires_s=act.now_s + lifetime_s)).rowcount
    newest_s = connection.execute(select(func.max(event_rows.c.time_s))).scalar_one()
    if changed:
        why = "times that lay ahead were taken back; look at the machine's clock and NTP"
        told: dict[str, Any] = {"step_s": round(act.now_s - newest_s, 3), "way": "back", "why": why}
        events.record(connection, act, "site", "clock stepped", alarm=True, **told)
