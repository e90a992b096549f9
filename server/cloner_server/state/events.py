"""The audit: every change of an object is one row with author and time; rows are never changed."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, func, insert, select

from cloner_core.admin.tasks import EventView
from cloner_server.state.database import Act
from cloner_server.state.tables import events


def record(
    connection: Connection,
    act: Act,
    obj: str,
    what: str,
    *,
    revision: int = 0,
    alarm: bool = False,
    is_network: bool = False,
    **detail: object,
) -> None:
    """Write one event; `detail` must hold no secret. `is_network` marks what anybody on the wire can cause.

    Such events are kept apart from the others and for a shorter time (`pruning`).
    """
    text = msgspec.json.encode(detail).decode()
    values = {
        "time_s": act.now_s,
        "author": act.author,
        "object": obj,
        "revision": revision,
        "what": what,
        "detail": text,
        "is_alarm": alarm,
        "is_network": is_network,
    }
    connection.execute(insert(events).values(values))


def record_seldom(
    connection: Connection, act: Act, obj: str, what: str, *, most: int = 20, within_s: float = 60.0, **detail: Any
) -> None:
    """Write one event unless `most` of its kind were written for `obj` within `within_s` seconds.

    For what a stranger can cause: each refusal is also counted by `cloner_server.audit`.
    """
    # Not what lies further ahead: the clock was set back since, and that must silence nobody.
    until_s = act.now_s + within_s
    if count_since(connection, obj, what, act.now_s - within_s, until_s=until_s) < most:
        record(connection, act, obj, what, **detail)


def list_events(
    connection: Connection,
    *,
    after: int = 0,
    obj: str = "",
    since_s: float = 0.0,
    alarms: bool = False,
    limit: int = 1000,
    newest: bool = False,
) -> list[EventView]:
    """Return events with an id above `after`, oldest first; of `obj` alone when it is given.

    At most `limit`: the first ones, or with `newest` the last.
    """
    order = events.c.id.desc() if newest else events.c.id
    query = select(events).where(events.c.id > after, events.c.time_s >= since_s).order_by(order).limit(limit)
    if obj:
        query = query.where(events.c.object == obj)
    if alarms:
        query = query.where(events.c.is_alarm)
    found = [_view(row) for row in connection.execute(query)]
    return found[::-1] if newest else found


def last_id(connection: Connection) -> int:
    """Return the id of the newest event, 0 when there is none."""
    return int(connection.execute(select(func.coalesce(func.max(events.c.id), 0))).scalar_one())


def last_id_of(connection: Connection, obj: str, what: str) -> int:
    """Return the id of the newest event `what` of `obj`, 0 when there is none."""
    query = select(func.coalesce(func.max(events.c.id), 0)).where(events.c.object == obj, events.c.what == what)
    return int(connection.execute(query).scalar_one())


def count_since(
    connection: Connection, obj: str, what: str, since_s: float, *, until_s: float = math.inf, after: int = 0
) -> int:
    """Return how many events `what` of `obj` came from `since_s` to `until_s`, with an id above `after`."""
    query = select(func.count()).where(events.c.object == obj, events.c.what == what, events.c.time_s >= since_s)
    if until_s < math.inf:
        query = query.where(events.c.time_s <= until_s)
    return int(connection.execute(query.where(events.c.id > after)).scalar_one())


def _view(row: Row[tuple[Any, ...]]) -> EventView:
    fields = {str(name): value for name, value in row._mapping.items() if name != "is_network"}
    detail = msgspec.json.decode(fields["detail"], type=dict[str, Any])
    return msgspec.convert({**fields, "detail": detail}, EventView)
