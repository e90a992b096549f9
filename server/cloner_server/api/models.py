"""Hardware models over the API of admins."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import delete, get, patch
from litestar.params import FromPath, FromQuery, JSONBody
from sqlalchemy import Connection

from cloner_core.admin.nodes import ModelPatch, ModelView
from cloner_server.api.callers import CoreDependency, who
from cloner_server.api.faults import AnyRequest
from cloner_server.state import models, nodes

_OK = 200


@get("/models", sync_to_thread=True)
def model_list(core: CoreDependency) -> list[ModelView]:
    """List every hardware model, with the nodes that take something from it."""
    with core.database.read() as connection:
        return [_with_nodes(connection, view) for view in models.list_models(connection)]


@patch("/models/{name:str}", sync_to_thread=True)
def model_set(
    core: CoreDependency,
    request: AnyRequest,
    name: FromPath[str],
    data: JSONBody[ModelPatch],
    dry_run: FromQuery[bool] = False,
) -> ModelView:
    """Change a hardware model, or make it."""
    with core.database.trial(dry_run) as connection:
        return _with_nodes(connection, models.set_model(connection, who(core, request), name, data))


@delete("/models/{name:str}", sync_to_thread=True, status_code=_OK)
def model_remove(
    core: CoreDependency, request: AnyRequest, name: FromPath[str], dry_run: FromQuery[bool] = False
) -> ModelView:
    """Remove a hardware model; its nodes take what another one or the site has."""
    with core.database.trial(dry_run) as connection:
        known = {view.name: view for view in models.list_models(connection)}
        before = _with_nodes(connection, known[name]) if name in known else None
        removed = models.remove_model(connection, who(core, request), name)
        return before or removed


def model_handlers() -> list[Any]:
    """Return the handlers of hardware models."""
    return [model_list, model_set, model_remove]


def _with_nodes(connection: Connection, view: ModelView) -> ModelView:
    source = f"model {view.name}"
    taking = [
        node.name for node in nodes.list_nodes(connection) if source in (node.local_method_from, node.boot_order_from)
    ]
    return msgspec.structs.replace(view, nodes=tuple(taking))
