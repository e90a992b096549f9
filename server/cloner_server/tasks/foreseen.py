"""The task that a node would be told, before anybody has armed it: what plans and fit reports are made from."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection

from cloner_core.admin.tasks import TaskState
from cloner_core.erasing.words import EraseTask
from cloner_core.errors import RefusedError
from cloner_core.image.reference import parse_reference
from cloner_core.messages import Task
from cloner_server.core import Core
from cloner_server.state import images, layouts, nodes, scripts
from cloner_server.state import tasks as rows
from cloner_server.tasks import claims
from cloner_server.tasks.erasing import erase_task_for
from cloner_server.tasks.rules import attempt_seed
from cloner_server.tasks.states import CLAIMABLE

_EXAMPLE_SEED = "00" * 32


def erase_to_come(connection: Connection, name: str) -> EraseTask | None:
    """Return what the next attempt of this node will be told to erase; None when no such task waits."""
    live = rows.live_task(connection, name)
    if live is None or live.kind != rows.ERASE or TaskState(live.state) not in CLAIMABLE:
        return None
    node = nodes.get_node(connection, name)
    return erase_task_for(node, live.document, task_id=str(live.id), attempt_id="", seed="")


def task_to_come(core: Core, connection: Connection, name: str, image: str, layout: str) -> Task:
    """Return the task the next attempt of this node would be told, with the very seed it will have if it is armed.

    `image` is "NAME", "NAME:N" or "NAME:CHANNEL", "" for the node's own; so is `layout`. Raises RefusedError when the
    node has neither.
    """
    node = nodes.get_node(connection, name)
    live = rows.live_task(connection, name)
    is_armed = live is not None and live.kind == rows.DEPLOY and TaskState(live.state) in CLAIMABLE
    if live is not None and is_armed and not image and not layout:
        last = rows.last_attempt(connection, live.id)
        seed = attempt_seed(core.rules, live.id, 1 if last is None else last.number + 1)
        version = core.catalog.version_ref(live.image, live.number)
        kept = scripts.set_numbered(connection, live.image, live.scripts_number)
        return claims.task_for(
            node, version, live.document, task_id=str(live.id), attempt_id="", seed=seed, scripts=kept
        )
    if not (image or node.image) or not (layout or node.layout):
        raise RefusedError(f"{name} has no image or no layout to plan with", hint="--image NAME --disklayout NAME")
    image_name, version_name = parse_reference(image) if image else (node.image, node.version)
    row = images.get_version(connection, image_name, version_name)
    view = layouts.get_layout(connection, layout or node.layout)
    document = msgspec.json.encode(view.layout).decode()
    version = core.catalog.version_ref(row.image, row.number)
    told = scripts.set_for(connection, row.image, row.number)
    return claims.task_for(node, version, document, task_id="", attempt_id="", seed=_EXAMPLE_SEED, scripts=told)
