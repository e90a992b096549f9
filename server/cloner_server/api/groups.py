"""Groups of nodes over the API of admins."""

from __future__ import annotations

from typing import Any

from litestar import get, patch
from litestar.params import FromPath, FromQuery, JSONBody

from cloner_core.admin.nodes import GroupPatch, GroupView
from cloner_server.api.callers import CoreDependency, who
from cloner_server.api.faults import AnyRequest
from cloner_server.state import groups


@get("/groups", sync_to_thread=True)
def group_list(core: CoreDependency) -> list[GroupView]:
    """List every group that has a node or is protected."""
    with core.database.read() as connection:
        return groups.list_groups(connection)


@get("/groups/{name:str}", sync_to_thread=True)
def group_show(core: CoreDependency, name: FromPath[str]) -> GroupView:
    """Show a group."""
    with core.database.read() as connection:
        return groups.get_group(connection, name)


@patch("/groups/{name:str}", sync_to_thread=True)
def group_set(
    core: CoreDependency,
    request: AnyRequest,
    name: FromPath[str],
    data: JSONBody[GroupPatch],
    dry_run: FromQuery[bool] = False,
) -> GroupView:
    """Change what is set for a group."""
    with core.database.trial(dry_run) as connection:
        return groups.change_group(connection, who(core, request), name, data)


def group_handlers() -> list[Any]:
    """Return the handlers of groups."""
    return [group_list, group_show, group_set]
