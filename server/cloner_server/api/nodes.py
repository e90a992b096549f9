"""Nodes over the API of admins."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import delete, get, patch, post
from litestar.params import FromPath, FromQuery, JSONBody

from cloner_core.admin.nodes import (
    AcceptRequest,
    HardwareView,
    ImportRequest,
    ImportResult,
    NodePatch,
    NodeSpec,
    NodeView,
)
from cloner_core.errors import ConflictError, NotFoundError, RefusedError
from cloner_core.facts import Facts
from cloner_core.sightings import Sighting
from cloner_server.api.callers import CoreDependency, who
from cloner_server.api.faults import AnyRequest
from cloner_server.core import Core
from cloner_server.state import importing, nodes, sightings
from cloner_server.state import tasks as rows
from cloner_server.state.references import check_patch, check_references

_OK = 200


@get("/nodes", sync_to_thread=True)
def node_list(core: CoreDependency) -> list[NodeView]:
    """List every node."""
    with core.database.read() as connection:
        return [_shown(core, node) for node in nodes.list_nodes(connection)]


@post("/nodes", sync_to_thread=True)
def node_add(
    core: CoreDependency, request: AnyRequest, data: JSONBody[NodeSpec], dry_run: FromQuery[bool] = False
) -> NodeView:
    """Add a node."""
    with core.database.trial(dry_run) as connection:
        check_references(connection, data.image, data.version, data.layout)
        return nodes.add_node(connection, who(core, request), data)


@get("/nodes/{name:str}", sync_to_thread=True)
def node_show(core: CoreDependency, name: FromPath[str]) -> NodeView:
    """Show a node."""
    with core.database.read() as connection:
        return _shown(core, nodes.get_node(connection, name))


@patch("/nodes/{name:str}", sync_to_thread=True)
def node_set(
    core: CoreDependency,
    request: AnyRequest,
    name: FromPath[str],
    data: JSONBody[NodePatch],
    dry_run: FromQuery[bool] = False,
) -> NodeView:
    """Change fields of a node."""
    with core.database.trial(dry_run) as connection:
        check_patch(connection, nodes.get_node(connection, name), data)
        return nodes.change_node(connection, who(core, request), name, data)


@delete("/nodes/{name:str}", sync_to_thread=True, status_code=_OK)
def node_remove(
    core: CoreDependency, request: AnyRequest, name: FromPath[str], dry_run: FromQuery[bool] = False
) -> NodeView:
    """Remove a node; its identity stays in the vault, so that adding it again gives the same machine."""
    with core.database.trial(dry_run) as connection:
        node = nodes.get_node(connection, name)
        if (live := rows.live_task(connection, name)) is not None:
            raise RefusedError(f"{name} has task {live.id}, which is {live.state}", hint=f"cloner task abort {live.id}")
        nodes.remove_node(connection, who(core, request), name)
        return node


@post("/import", sync_to_thread=True, status_code=_OK)
def node_import(core: CoreDependency, request: AnyRequest, data: JSONBody[ImportRequest]) -> list[ImportResult]:
    """Add and change nodes: all of them, or none."""
    with core.database.trial(data.dry_run) as connection:
        return importing.import_nodes(connection, who(core, request), data)


@get("/nodes/{name:str}/facts", sync_to_thread=True)
def node_facts(core: CoreDependency, name: FromPath[str]) -> Facts:
    """Show the last inventory of a machine."""
    with core.database.read() as connection:
        known = nodes.last_facts(connection, name)
    if known is None:
        raise NotFoundError(f"{name} was never seen", hint="its inventory is taken when it boots the agent")
    return known[0]


@get("/nodes/{name:str}/hardware", sync_to_thread=True)
def node_hardware(core: CoreDependency, name: FromPath[str]) -> HardwareView:
    """Show which machine the node is, and which one was turned away."""
    with core.database.read() as connection:
        node = nodes.get_node(connection, name)
        return HardwareView(accepted=node.fingerprint, offered=nodes.offered_hardware(connection, name))


@post("/nodes/{name:str}/accept", sync_to_thread=True, status_code=_OK)
def node_accept(
    core: CoreDependency, request: AnyRequest, name: FromPath[str], data: JSONBody[AcceptRequest]
) -> NodeView:
    """Let the machine that was turned away be the node."""
    with core.database.trial(data.dry_run) as connection:
        node, offered = nodes.get_node(connection, name), nodes.offered_hardware(connection, name)
        if node.fingerprint == data.fingerprint:
            return node
        if offered is None or offered.fingerprint != data.fingerprint:
            raise ConflictError(f"the machine {data.fingerprint[:64]} does not wait for {name}", hint="look again")
        act = who(core, request)
        return nodes.accept_fingerprint(connection, act, name, data.fingerprint, why=f"accepted by {act.author}")


@get("/nodes/{name:str}/sightings", sync_to_thread=True)
def node_sightings(core: CoreDependency, name: FromPath[str]) -> list[Sighting]:
    """Show when each step of the machine's boot was seen last, the oldest first."""
    with core.database.read() as connection:
        return sightings.list_sightings(connection, nodes.get_node(connection, name).name)


def node_handlers() -> list[Any]:
    """Return the handlers of nodes."""
    changing: list[Any] = [node_add, node_set, node_remove, node_import, node_accept]
    return [node_list, node_show, node_facts, node_hardware, node_sightings, *changing]


def _shown(core: Core, node: NodeView) -> NodeView:
    """Return `node` as a person may see it: where consoles are switched off, no password is in use."""
    return node if core.rules.console_key else msgspec.structs.replace(node, console_password="off")
