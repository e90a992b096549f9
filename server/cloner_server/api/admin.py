"""The API of admins, reached over the root-only Unix socket: its router, layouts, events, status.

What a capture on another machine needs of it is on the port of nodes as well, for the holder of a token.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

from litestar import Router, get, post
from litestar.params import FromPath, FromQuery, JSONBody

from cloner_core.admin.images import LayoutView
from cloner_core.admin.tasks import EventView, Status
from cloner_core.errors import InvalidError
from cloner_core.layout import Layout
from cloner_core.messages import PROTOCOL
from cloner_server import VERSION
from cloner_server.api.callers import CoreDependency, admit, require_layout, who
from cloner_server.api.channels import channel_handlers
from cloner_server.api.consoles import console_handlers
from cloner_server.api.faults import AnyRequest
from cloner_server.api.fit import fit_handlers
from cloner_server.api.groups import group_handlers
from cloner_server.api.identities import identity_handlers
from cloner_server.api.images import capture_handlers
from cloner_server.api.installers import installer_handlers, node_installer_handlers
from cloner_server.api.kit import kit_handlers
from cloner_server.api.machines import machine_handlers
from cloner_server.api.models import model_handlers
from cloner_server.api.multicast import multicast_handlers
from cloner_server.api.nodes import node_handlers
from cloner_server.api.relays import relay_handlers
from cloner_server.api.tokens import token_handlers, token_mine
from cloner_server.api.work import work_handlers
from cloner_server.consoles import default_warning
from cloner_server.core import Core
from cloner_server.state import events, images, layouts, nodes
from cloner_server.state import tasks as rows

_OK, _DAY_S = 200, 86400.0


@get("/layouts", sync_to_thread=True)
def layout_list(core: CoreDependency) -> list[LayoutView]:
    """List the newest number of every layout."""
    with core.database.read() as connection:
        return layouts.list_layouts(connection)


@get("/layouts/{name:str}", sync_to_thread=True)
def layout_show(core: CoreDependency, name: FromPath[str], number: FromQuery[int | None] = None) -> LayoutView:
    """Show one number of a layout, the newest by default."""
    with core.database.read() as connection:
        return layouts.get_layout(connection, name, number)


@post("/layouts", sync_to_thread=True, status_code=_OK)
def layout_add(
    core: CoreDependency, request: AnyRequest, data: JSONBody[Layout], dry_run: FromQuery[bool] = False
) -> LayoutView:
    """Keep a layout under the next number of its name."""
    from cloner_core.layout.rules import layout_faults

    if faults := layout_faults(data):
        raise InvalidError(f"layout '{data.name}' cannot be used", faults=faults)
    with core.database.trial(dry_run) as connection:
        require_layout(connection, request, data.name)
        return layouts.add_layout(connection, who(core, request), data)


@get("/events", sync_to_thread=True)
def event_list(
    core: CoreDependency,
    after: FromQuery[int | None] = None,
    subject: FromQuery[str] = "",
    limit: FromQuery[int] = 1000,
) -> list[EventView]:
    """List events, oldest first: the next ones after one, or the newest when none is named."""
    most = max(1, min(limit, 10_000))
    with core.database.read() as connection:
        return events.list_events(connection, after=after or 0, obj=subject, limit=most, newest=after is None)


@get("/status", sync_to_thread=True)
def status(core: CoreDependency) -> Status:
    """Show the server at a glance."""
    with core.database.read() as connection:
        return Status(
            version=f"{VERSION} (protocol {PROTOCOL})",
            address=core.address,
            nodes=len(nodes.list_nodes(connection)),
            tasks=rows.count_by_state(connection),
            images=len(images.list_versions(connection)),
            alarms=tuple(events.list_events(connection, since_s=core.clock() - _DAY_S, alarms=True, newest=True)),
            free_bytes=shutil.disk_usage(core.state_directory).free,
            services=core.services,
            warnings=tuple(filter(None, (default_warning(connection),))) if core.rules.console_key else (),
        )


def admin_router(more: list[Any]) -> Router:
    """Return the routes of admins; `more` are those of images, failures and streams."""
    own: list[Any] = [layout_list, layout_show, layout_add, event_list, status]
    own += [
        *node_handlers(),
        *machine_handlers(),
        *model_handlers(),
        *group_handlers(),
        *channel_handlers(),
        *work_handlers(),
        *multicast_handlers(),
        *relay_handlers(),
        *fit_handlers(),
        *identity_handlers(),
        *console_handlers(),
        *token_handlers(),
        *installer_handlers(),
        *kit_handlers(),
    ]
    return Router("/v1", route_handlers=[*own, *more], tags=["admin"])


def capture_router(core_of: Callable[[], Core]) -> Router:
    """Return the routes of the port of nodes that the holder of a token has: the same paths as those of admins."""
    own: list[Any] = [token_mine, layout_show, layout_add]
    return Router(
        "/v1", route_handlers=[*own, *capture_handlers(), *node_installer_handlers()], guards=[admit(core_of)]
    )
