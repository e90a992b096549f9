"""Hardware models as they are kept: changed by compare-and-swap, each change an event."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET
from sqlalchemy import Connection, delete, insert, select, update

from cloner_core.admin.nodes import ModelPatch, ModelView
from cloner_core.errors import ConflictError, InvalidError, NotFoundError
from cloner_core.models import Model, model_faults
from cloner_server.state import events
from cloner_server.state.database import Act
from cloner_server.state.tables import hardware_models

_FIELDS = ("name", "vendor", "product", "local_method", "boot_order")


def kept_models(connection: Connection) -> list[Model]:
    """Return every rule, by name."""
    rows = connection.execute(select(hardware_models).order_by(hardware_models.c.name))
    return [Model(**{field: getattr(row, field) for field in _FIELDS}) for row in rows]


def list_models(connection: Connection) -> list[ModelView]:
    """Return every model, by name, without its nodes."""
    rows = connection.execute(select(hardware_models).order_by(hardware_models.c.name)).mappings()
    return [msgspec.convert({str(name): value for name, value in row.items()}, ModelView) for row in rows]


def set_model(connection: Connection, act: Act, name: str, patch: ModelPatch) -> ModelView:
    """Change the model `name`, or make it; what is so already changes nothing.

    Raises InvalidError with every fault, ConflictError when `patch` names another revision.
    """
    found = {view.name: view for view in list_models(connection)}
    before = found.get(name, ModelView(name, 0, "", "", "", ""))
    if patch.revision is not UNSET and patch.revision != before.revision:
        raise ConflictError(
            f"the model '{name}' has revision {before.revision}, not {patch.revision}", hint="read it again"
        )
    asked: dict[str, Any] = {
        k: v for k, v in msgspec.structs.asdict(patch).items() if v is not UNSET and k != "revision"
    }
    after = msgspec.structs.replace(before, **asked, revision=before.revision + 1)
    fields = {field: getattr(after, field) for field in _FIELDS}
    if faults := model_faults(Model(**fields)):
        raise InvalidError(f"the model '{name}' cannot be so", faults=faults)
    if before.revision and all(getattr(before, k) == v for k, v in asked.items()):
        return before
    values = fields | {"revision": after.revision}
    if before.revision:
        connection.execute(update(hardware_models).where(hardware_models.c.name == name).values(values))
    else:
        connection.execute(insert(hardware_models).values(values))
    events.record(connection, act, f"model/{name}", "set", revision=after.revision, **asked)
    return after


def remove_model(connection: Connection, act: Act, name: str) -> ModelView:
    """Remove a model; raises NotFoundError."""
    for view in list_models(connection):
        if view.name == name:
            connection.execute(delete(hardware_models).where(hardware_models.c.name == name))
            events.record(connection, act, f"model/{name}", "removed", revision=view.revision)
            return view
    raise NotFoundError(f"no such hardware model: {name}", hint="cloner model list shows all")
