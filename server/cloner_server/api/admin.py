"""The API of admins: nodes, layouts, tasks, events. Reached over the root-only Unix socket."""

from __future__ import annotations

import shutil
from typing import Any

import msgspec
from litestar import Router, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, SkipValidation
from sqlalchemy import Connection

from cloner_core.admin import (
    DeployRequest,
    EventView,
    Intent,
    LayoutView,
    LogEntry,
    NetbootRequest,
    NodePatch,
    NodeSpec,
    NodeView,
    PlanView,
    ReceiptView,
    Status,
    TaskState,
    TaskView,
)
from cloner_core.errors import InvalidError, NotFoundError, RefusedError
from cloner_core.facts import Facts
from cloner_core.layout import Layout
from cloner_core.messages import PROTOCOL, Task
from cloner_server import VERSION, planning, vault
from cloner_server.api.faults import AnyRequest
from cloner_server.core import Core
from cloner_server.state import events, images, layouts, nodes
from cloner_server.state import tasks as rows
from cloner_server.state.database import Act
from cloner_server.tasks import arming, claims, endings
from cloner_server.tasks.rules import attempt_seed
from cloner_server.tasks.states import CLAIMABLE

CoreDependency = NamedDependency[SkipValidation[Core]]
_OK, _DAY_S = 200, 86400.0
_EXAMPLE_SEED = "00" * 32


def who(core: Core, request: AnyRequest) -> Act:
    """Return the author a root-only socket lets the caller name, for the audit."""
    name = request.headers.get("cloner-author", "root")[:64]
    return core.act(name if name.isprintable() else "root")


@get("/nodes", sync_to_thread=True)
def node_list(core: CoreDependency) -> list[NodeView]:
    """List every node."""
    with core.database.read() as connection:
        return nodes.list_nodes(connection)


@post("/nodes", sync_to_thread=True)
def node_add(
    core: CoreDependency, request: AnyRequest, data: JSONBody[NodeSpec], dry_run: FromQuery[bool] = False
) -> NodeView:
    """Add a node."""
    with core.database.trial(dry_run) as connection:
        _check_references(connection, data.image, data.version, data.layout)
        return nodes.add_node(connection, who(core, request), data)


@get("/nodes/{name:str}", sync_to_thread=True)
def node_show(core: CoreDependency, name: FromPath[str]) -> NodeView:
    """Show a node."""
    with core.database.read() as connection:
        return nodes.get_node(connection, name)


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
        before = nodes.get_node(connection, name)
        is_named = not isinstance(data.image, msgspec.UnsetType) or not isinstance(data.version, msgspec.UnsetType)
        image = before.image if isinstance(data.image, msgspec.UnsetType) else data.image
        version = before.version if isinstance(data.version, msgspec.UnsetType) else data.version
        layout = "" if isinstance(data.layout, msgspec.UnsetType) else data.layout
        _check_references(connection, image if is_named else "", version, layout)
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


@get("/nodes/{name:str}/facts", sync_to_thread=True)
def node_facts(core: CoreDependency, name: FromPath[str]) -> Facts:
    """Show the last inventory of a machine."""
    with core.database.read() as connection:
        known = nodes.last_facts(connection, name)
    if known is None:
        raise NotFoundError(f"{name} was never seen", hint="its inventory is taken when it boots the agent")
    return known[0]


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
        return layouts.add_layout(connection, who(core, request), data)


@post("/deploy", sync_to_thread=True, status_code=_OK)
def deploy(core: CoreDependency, request: AnyRequest, data: JSONBody[DeployRequest]) -> list[Intent]:
    """Arm one task on each node: all of them, or none."""
    act = who(core, request)
    with core.database.read() as connection:
        intents = arming.intend(connection, data, core.rules)
    if data.dry_run:
        return intents
    vault.ensure_identities(core.database, act, [intent.node for intent in intents], core.site.vault_key)
    with core.database.write() as connection:
        return arming.arm(connection, act, arming.intend(connection, data, core.rules), core.rules)


@post("/netboot", sync_to_thread=True, status_code=_OK)
def netboot(core: CoreDependency, request: AnyRequest, data: JSONBody[NetbootRequest]) -> list[NodeView]:
    """Set netboot of nodes; `cloner` arms a task from the node's image and layout."""
    names = list(dict.fromkeys(data.nodes))
    if data.value == "cloner":
        asked = DeployRequest(nodes=data.nodes, limit=data.limit, dry_run=data.dry_run)
        deploy.fn(core, request, asked)
        with core.database.read() as connection:
            return nodes.get_nodes(connection, names)
    if data.value != "local":
        raise RefusedError(f"netboot '{data.value}' is not offered by this version", hint="local, cloner")
    act = who(core, request)
    with core.database.trial(data.dry_run) as connection:
        held = []
        for node in nodes.get_nodes(connection, names):
            live = rows.live_task(connection, node.name)
            if live is not None and TaskState(live.state) is not TaskState.UNCONFIRMED:
                held.append(f"{node.name} has task {live.id}, which is {live.state}")
        if held:
            raise RefusedError("; ".join(held), hint="cloner task abort ends a task and sets netboot to local")
        return [nodes.set_netboot(connection, act, name, data.value, why="asked for") for name in names]


@get("/plan/{name:str}", sync_to_thread=True)
def plan_show(
    core: CoreDependency, name: FromPath[str], image: FromQuery[str] = "", layout: FromQuery[str] = ""
) -> PlanView:
    """Show what a node would run, planned from its last inventory."""
    with core.database.read() as connection:
        known = nodes.last_facts(connection, name)
        if known is None:
            raise NotFoundError(
                f"{name} was never seen, so its disks are not known",
                hint="its inventory is taken when it boots the agent; or give one with --facts FILE",
            )
        task = _task_to_come(core, connection, name, image, layout)
    rendered, digest = planning.preview(known[0], task, core.catalog.find(task.version))
    return PlanView(node=name, rendered=rendered, digest=digest, facts_s=known[1])


@post("/plan/{name:str}", sync_to_thread=True, status_code=_OK)
def plan_for(
    core: CoreDependency,
    name: FromPath[str],
    data: JSONBody[Facts],
    image: FromQuery[str] = "",
    layout: FromQuery[str] = "",
) -> PlanView:
    """Show what a node would run if its machine were as given."""
    with core.database.read() as connection:
        task = _task_to_come(core, connection, name, image, layout)
    rendered, digest = planning.preview(data, task, core.catalog.find(task.version))
    return PlanView(node=name, rendered=rendered, digest=digest, facts_s=None)


@get("/tasks", sync_to_thread=True)
def task_list(
    core: CoreDependency, node: FromQuery[str] = "", live: FromQuery[bool] = False, limit: FromQuery[int] = 200
) -> list[TaskView]:
    """List tasks, the newest first."""
    with core.database.read() as connection:
        return rows.list_tasks(connection, node=node, live_only=live, limit=max(1, min(limit, 10_000)))


@get("/tasks/{task_id:str}", sync_to_thread=True)
def task_show(core: CoreDependency, task_id: FromPath[str]) -> TaskView:
    """Show a task."""
    with core.database.read() as connection:
        return rows.view_task(connection, rows.get_task(connection, task_id))


@get("/tasks/{task_id:str}/log", sync_to_thread=True)
def task_log(core: CoreDependency, task_id: FromPath[str], after: FromQuery[int] = 0) -> list[LogEntry]:
    """Return what the agents of a task logged."""
    with core.database.read() as connection:
        return rows.list_log(connection, rows.get_task(connection, task_id).id, after=after)


@post("/tasks/{task_id:str}/abort", sync_to_thread=True, status_code=_OK)
def task_abort(
    core: CoreDependency, request: AnyRequest, task_id: FromPath[str], dry_run: FromQuery[bool] = False
) -> TaskView:
    """Stop a task."""
    with core.database.trial(dry_run) as connection:
        return rows.view_task(connection, endings.abort_task(connection, who(core, request), task_id))


@post("/tasks/{task_id:str}/retry", sync_to_thread=True, status_code=_OK)
def task_retry(
    core: CoreDependency, request: AnyRequest, task_id: FromPath[str], dry_run: FromQuery[bool] = False
) -> TaskView:
    """Queue a failed, frozen or aborted task once more."""
    with core.database.trial(dry_run) as connection:
        return rows.view_task(connection, endings.retry_task(connection, who(core, request), task_id, core.rules))


@get("/receipts/{key:str}", sync_to_thread=True)
def receipt_show(core: CoreDependency, key: FromPath[str]) -> ReceiptView:
    """Show the newest receipt of a task or a node."""
    with core.database.read() as connection:
        return ReceiptView(receipt=endings.find_receipt(connection, key), server_key=core.site.public_key.hex())


@get("/events", sync_to_thread=True)
def event_list(
    core: CoreDependency, after: FromQuery[int] = 0, subject: FromQuery[str] = "", limit: FromQuery[int] = 1000
) -> list[EventView]:
    """List events after one, oldest first."""
    with core.database.read() as connection:
        return events.list_events(connection, after=after, obj=subject, limit=max(1, min(limit, 10_000)))


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
            alarms=tuple(events.list_events(connection, since_s=core.clock() - _DAY_S, alarms=True)),
            free_bytes=shutil.disk_usage(core.state_directory).free,
            services=core.services,
        )


def admin_router(more: list[Any]) -> Router:
    """Return the routes of admins; `more` are those of images and streams."""
    own: list[Any] = [node_list, node_add, node_show, node_set, node_remove, node_facts]
    own += [layout_list, layout_show, layout_add, deploy, netboot, plan_show, plan_for]
    own += [task_list, task_show, task_log, task_abort, task_retry, receipt_show, event_list, status]
    return Router("/v1", route_handlers=[*own, *more], tags=["admin"])


def _task_to_come(core: Core, connection: Connection, name: str, image: str, layout: str) -> Task:
    """Return the task the next attempt of this node would be told, with the very seed it will have if it is armed."""
    node = nodes.get_node(connection, name)
    live = rows.live_task(connection, name)
    if live is not None and TaskState(live.state) in CLAIMABLE and not image and not layout:
        last = rows.last_attempt(connection, live.id)
        seed = attempt_seed(core.rules, live.id, 1 if last is None else last.number + 1)
        version = core.catalog.version_ref(live.image, live.number)
        return claims.task_for(node, version, live.document, task_id=str(live.id), attempt_id="", seed=seed)
    image_name, _, number = (image or node.image).partition(":")
    if not image_name or not (layout or node.layout):
        raise RefusedError(f"{name} has no image or no layout to plan with", hint="--image NAME --disklayout NAME")
    row = images.get_version(connection, image_name, _number(number) or (None if image else node.version))
    view = layouts.get_layout(connection, layout or node.layout)
    document = msgspec.json.encode(view.layout).decode()
    version = core.catalog.version_ref(row.image, row.number)
    return claims.task_for(node, version, document, task_id="", attempt_id="", seed=_EXAMPLE_SEED)


def _check_references(connection: Connection, image: str, version: int | None, layout: str) -> None:
    """Raise NotFoundError naming the image and the layout that do not exist."""
    faults = []
    for look in ((images.get_version, image, version), (layouts.get_layout, layout, None)):
        try:
            if look[1]:
                look[0](connection, look[1], look[2])
        except NotFoundError as fault:
            faults.append(str(fault))
    if faults:
        raise NotFoundError("; ".join(faults))


def _number(text: str) -> int | None:
    if text and not (text.isdecimal() and 0 < len(text) < 10):
        raise InvalidError(f"'{text}' is not the number of a version")
    return int(text) if text else None
