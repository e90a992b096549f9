"""Layouts: every upload is a new number; a number never changes."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, func, insert, select

from cloner_core.admin.images import LayoutView
from cloner_core.admin.names import check_name
from cloner_core.errors import NotFoundError
from cloner_core.layout import Layout
from cloner_server.state import events
from cloner_server.state.database import Act
from cloner_server.state.tables import layouts


def add_layout(connection: Connection, act: Act, layout: Layout) -> LayoutView:
    """Keep `layout` under the next number of its name; the same document again is the number it already has."""
    check_name(layout.name, "layout")
    document = msgspec.json.encode(layout).decode()
    newest = select(layouts).where(layouts.c.name == layout.name).order_by(layouts.c.number.desc()).limit(1)
    row = connection.execute(newest).one_or_none()
    if row is not None and row.document == document:
        return get_layout(connection, layout.name)
    number = 1 if row is None else row.number + 1
    values = {"name": layout.name, "number": number, "document": document}
    connection.execute(insert(layouts).values(values | {"created_s": act.now_s, "author": act.author}))
    events.record(connection, act, f"layout/{layout.name}:{number}", "added", revision=number)
    return get_layout(connection, layout.name)


def get_layout(connection: Connection, name: str, number: int | None = None) -> LayoutView:
    """Return one number of the layout `name`, the newest when None; raises NotFoundError."""
    query = select(layouts).where(layouts.c.name == name).order_by(layouts.c.number.desc()).limit(1)
    if number is not None:
        query = query.where(layouts.c.number == number)
    row = connection.execute(query).one_or_none()
    if row is None:
        shown = name if number is None else f"{name}:{number}"
        raise NotFoundError(f"no such layout: '{shown}'", hint="cloner disklayout-upload adds one")
    layout = msgspec.json.decode(row.document, type=Layout)
    return LayoutView(name=row.name, number=row.number, created_s=row.created_s, author=row.author, layout=layout)


def list_layouts(connection: Connection) -> list[LayoutView]:
    """Return the newest number of every layout, by name."""
    names = connection.execute(select(layouts.c.name, func.max(layouts.c.number)).group_by(layouts.c.name))
    return [get_layout(connection, name, number) for name, number in sorted(tuple(row) for row in names)]
