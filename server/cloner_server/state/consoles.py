"""Passwords of consoles: a node's own goes before its groups', these before the site's, that before the default.

Only salted hashes are kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, and_, delete, insert, or_, select

from cloner_core.admin.consoles import ConsoleScope, PasswordView
from cloner_core.messages import PasswordHash
from cloner_server.state import events
from cloner_server.state.database import Act
from cloner_server.state.tables import console_passwords as table

Kept = dict[tuple[str, str], PasswordHash]
DEFAULT = "default"


def set_password(
    connection: Connection, act: Act, scope: ConsoleScope, names: Sequence[str], password: PasswordHash | None
) -> None:
    """Keep `password` for each of `names` ("" for the site); None takes away what was kept."""
    for name in names:
        connection.execute(delete(table).where(table.c.scope == scope, table.c.name == name))
        if password is not None:
            row = {"scope": scope, "name": name, "salt": password.salt, "digest": password.digest, "set_s": act.now_s}
            connection.execute(insert(table).values(row))
        what = "console password reset" if password is None else "console password set"
        events.record(connection, act, f"{scope}/{name}" if name else scope, what)


def list_passwords(connection: Connection) -> list[PasswordView]:
    """Return where passwords are set, and since when."""
    query = select(table.c.scope, table.c.name, table.c.set_s).order_by(table.c.scope, table.c.name)
    return [PasswordView(scope=row.scope, name=row.name, set_s=row.set_s) for row in connection.execute(query)]


def kept_passwords(connection: Connection, node: str = "", groups: Sequence[str] = ()) -> Kept:
    """Return the hashes that are kept: all of them, or with `node` those that may count for it."""
    query = select(table)
    if node:
        of_groups = and_(table.c.scope == "group", table.c.name.in_(groups))
        of_node = and_(table.c.scope == "node", table.c.name == node)
        query = query.where(or_(table.c.scope == "site", of_groups, of_node))
    return {(row.scope, row.name): PasswordHash(row.salt, row.digest) for row in connection.execute(query)}


def source_of(kept: Kept, node: str, groups: Sequence[str]) -> tuple[str, PasswordHash | None]:
    """Return where the password of `node` comes from ("node", "group rack1", "site", "default"), and its hash.

    None: the default. Of several groups with a password the first by name counts.
    """
    if (own := kept.get(("node", node))) is not None:
        return "node", own
    for group in sorted(groups):
        if (shared := kept.get(("group", group))) is not None:
            return f"group {group}", shared
    site = kept.get(("site", ""))
    return ("site", site) if site is not None else (DEFAULT, None)
