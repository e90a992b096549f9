"""How much of the store's disk was used, once a day: what the growth is told from."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select

from cloner_core.growth import DAY_S, WINDOW_DAYS, Sample
from cloner_server.state.tables import store_sizes

_APART_S = 0.9 * DAY_S  # so that a look each hour gives one a day
_KEPT_S = 2 * WINDOW_DAYS * DAY_S


def is_due(connection: Connection, now_s: float) -> bool:
    """Return whether a day has passed since the last size; one that lies ahead is of a clock that was set back."""
    query = select(store_sizes.c.taken_s).where(
        store_sizes.c.taken_s > now_s - _APART_S, store_sizes.c.taken_s <= now_s
    )
    return connection.execute(query.limit(1)).first() is None


def note(connection: Connection, now_s: float, used_bytes: int) -> None:
    """Keep a size; those of more than two months ago go, and so do those that lie ahead."""
    outside = (store_sizes.c.taken_s < now_s - _KEPT_S) | (store_sizes.c.taken_s >= now_s)
    connection.execute(delete(store_sizes).where(outside))
    connection.execute(insert(store_sizes).values(taken_s=now_s, used_bytes=used_bytes))


def samples(connection: Connection) -> list[Sample]:
    """Return every size, oldest first."""
    rows = connection.execute(select(store_sizes).order_by(store_sizes.c.taken_s))
    return [Sample(row.taken_s, row.used_bytes) for row in rows]
