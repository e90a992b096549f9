"""Rows of nodes in `cloner-multicast` without a task; the rules are in `cloner_server.tasks.waiting`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from cloner_server.state.tables import waiting

AnyRow = Row[tuple[Any, ...]]


def add(connection: Connection, node: str, former: str) -> None:
    """Note that `node` is to wait at its next network boot; what it waited before is forgotten."""
    forget(connection, node)
    connection.execute(insert(waiting).values(node=node, former=former))


def change(connection: Connection, node: str, **values: object) -> None:
    """Set columns of a node's row."""
    connection.execute(update(waiting).where(waiting.c.node == node).values(values))


def of_node(connection: Connection, node: str) -> AnyRow | None:
    """Return the row of a node; None when there is none."""
    return connection.execute(select(waiting).where(waiting.c.node == node)).one_or_none()


def of_agent(connection: Connection, token_hash: str, public_key: str) -> AnyRow | None:
    """Return the row of the agent that came with this claim and key; None for any other."""
    same = waiting.c.token_hash == token_hash, waiting.c.public_key == public_key, waiting.c.token_hash != ""
    return connection.execute(select(waiting).where(*same)).one_or_none()


def list_rows(connection: Connection) -> list[AnyRow]:
    """Return every row, by node."""
    return list(connection.execute(select(waiting).order_by(waiting.c.node)))


def forget(connection: Connection, node: str) -> None:
    """Remove the row of a node that waits no longer."""
    connection.execute(delete(waiting).where(waiting.c.node == node))
