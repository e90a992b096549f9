"""Groups of nodes: who is in one, the nodes say; what is set for all of them is kept here.

A group begins with the first node that names it and ends with the last. Its protection outlives that: a group that is
protected stays so for nodes to come.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET
from sqlalchemy import Connection, insert, select, update

from cloner_core.admin.nodes import GroupPatch, GroupView
from cloner_core.errors import NotFoundError
from cloner_server.state import events
from cloner_server.state.database import Act
from cloner_server.state.tables import node_groups, nodes


def list_groups(connection: Connection) -> list[GroupView]:
    """Return every group that has a node or is protected, by name."""
    members: dict[str, list[str]] = {}
    for row in connection.execute(select(nodes.c.name, nodes.c.groups).order_by(nodes.c.name)):
        for group in msgspec.json.decode(row.groups, type=list[str]):
            members.setdefault(group, []).append(row.name)
    rows = {row.name: row for row in connection.execute(select(node_groups))}
    known = {*members, *(name for name, row in rows.items() if row.is_protected)}
    return [
        GroupView(
            name=name,
            revision=rows[name].revision if name in rows else 0,
            nodes=tuple(members.get(name, ())),
            is_protected=name in rows and rows[name].is_protected,
        )
        for name in sorted(known)
    ]


def get_group(connection: Connection, name: str) -> GroupView:
    """Return the group `name`; raises NotFoundError when it has neither a node nor protection."""
    for group in list_groups(connection):
        if group.name == name:
            return group
    raise NotFoundError(
        f"no such group: {name}", hint="cloner group list shows all; cloner node set SET --groups names one"
    )


def change_group(connection: Connection, act: Act, name: str, patch: GroupPatch) -> GroupView:
    """Apply `patch` to the group `name`; what is so already changes nothing."""
    before = get_group(connection, name)
    if patch.is_protected is UNSET or patch.is_protected == before.is_protected:
        return before
    values = {"revision": before.revision + 1, "is_protected": patch.is_protected}
    if before.revision:
        connection.execute(update(node_groups).where(node_groups.c.name == name).values(values))
    else:
        connection.execute(insert(node_groups).values(values | {"name": name}))
    what = "protected" if patch.is_protected else "unprotected"
    events.record(connection, act, f"group/{name}", what, revision=before.revision + 1)
    return msgspec.structs.replace(before, revision=before.revision + 1, is_protected=bool(patch.is_protected))


def protected_groups(connection: Connection) -> frozenset[str]:
    """Return the names of all protected groups."""
    return frozenset(connection.execute(select(node_groups.c.name).where(node_groups.c.is_protected)).scalars())
