"""Bundles of failures: one an attempt, the newest thousand of the site."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, delete, insert, select

from cloner_core.bundle import Bundle, BundleView
from cloner_core.errors import NotFoundError
from cloner_core.image.compression import compress, decompress
from cloner_server.state import events
from cloner_server.state import tasks as rows
from cloner_server.state.database import Act
from cloner_server.state.tables import bundles

MOST_KEPT = 1000
"""A bundle is about 50 KiB stored; what is older than the newest thousand explains nothing any more."""


def keep_bundle(
    connection: Connection, act: Act, task_id: int, attempt_id: str, bundle: Bundle, *, most: int = MOST_KEPT
) -> None:
    """Keep the bundle of an attempt, and of all bundles the newest `most`.

    The first of an attempt stays, so that sending it twice changes nothing.
    """
    if connection.execute(select(bundles.c.attempt).where(bundles.c.attempt == attempt_id)).first():
        return
    text = msgspec.json.encode(bundle)
    values = {"attempt": attempt_id, "task": task_id, "received_s": act.now_s}
    connection.execute(insert(bundles).values(values | {"size": len(text), "content": compress(text)}))
    newest = select(bundles.c.attempt).order_by(bundles.c.received_s.desc(), bundles.c.attempt).limit(most)
    connection.execute(delete(bundles).where(bundles.c.attempt.not_in(newest)))
    events.record(connection, act, f"task/{task_id}", "bundle kept", attempt=attempt_id, size_bytes=len(text))


def find_bundle(connection: Connection, task_id: str) -> BundleView:
    """Return the newest bundle of a task; raises NotFoundError."""
    task = rows.get_task(connection, task_id)
    query = select(bundles).where(bundles.c.task == task.id).order_by(bundles.c.received_s.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFoundError(
            f"task {task.id} has no bundle: its agent sent none, or it is too old to be kept",
            hint=f"cloner task log {task.id}",
        )
    text = decompress(row.content, row.size, f"the bundle of attempt {row.attempt}")
    return BundleView(
        task=str(task.id),
        attempt=row.attempt,
        received_s=row.received_s,
        bundle=msgspec.json.decode(text, type=Bundle),
    )


def tasks_with_bundle(connection: Connection) -> frozenset[int]:
    """Return the tasks that have a bundle."""
    return frozenset(connection.execute(select(bundles.c.task).distinct()).scalars())
