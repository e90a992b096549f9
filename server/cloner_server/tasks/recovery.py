"""What is not well, and beginning anew many at a time."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, func, select

from cloner_core.admin.tasks import TaskState, TaskView
from cloner_core.errors import ClonerError, RefusedError
from cloner_core.facts import Dmi
from cloner_core.failures import NotWell, RetryRequest
from cloner_core.lldp import Neighbor, switch_of
from cloner_server.state import bundles
from cloner_server.state import tasks as rows
from cloner_server.state.database import Act
from cloner_server.state.tables import nodes, tasks
from cloner_server.tasks.endings import retry_task
from cloner_server.tasks.rules import Rules

_STATES = (TaskState.FAILED, TaskState.FROZEN, TaskState.LOST)


class _Named(msgspec.Struct):
    """The part of an inventory that names the machine."""

    dmi: Dmi = Dmi()


def not_well(connection: Connection) -> list[NotWell]:
    """Return every node whose newest task is failed, frozen or lost, by name.

    A failure that a later task of the node has mended is history; so is one of a node that was removed.
    """
    newest = select(func.max(tasks.c.id)).group_by(tasks.c.node)
    query = (
        select(tasks, nodes.c.facts, nodes.c.switch, nodes.c.neighbors, nodes.c.relay)
        .join(nodes, nodes.c.name == tasks.c.node)
        .where(tasks.c.id.in_(newest), tasks.c.state.in_([state.value for state in _STATES]))
        .order_by(tasks.c.node)
    )
    with_bundle = bundles.tasks_with_bundle(connection)
    return [
        NotWell(
            task=rows.view_task(connection, row),
            model=_model(row.facts),
            switch=switch_of(row.switch, msgspec.json.decode(row.neighbors, type=tuple[Neighbor, ...]), row.relay),
            has_bundle=row.id in with_bundle,
        )
        for row in connection.execute(query)
    ]


def retry_failed(connection: Connection, act: Act, request: RetryRequest, rules: Rules) -> list[TaskView]:
    """Queue the failed tasks of `request` once more: all of them, or none.

    Raises RefusedError with every reason against it.
    """
    wanted = list(dict.fromkeys(request.tasks))
    if len(wanted) > request.limit:
        raise RefusedError(
            f"{len(wanted)} tasks are named, the limit is {request.limit}", hint=f"limit {len(wanted)} means it"
        )
    found = [rows.get_task(connection, task_id) for task_id in wanted]
    reasons = []
    for task in found:
        if TaskState(task.state) is not TaskState.FAILED:
            reasons.append(f"task {task.id} of {task.node} is {task.state}, not failed")
            continue
        try:
            retry_task(connection, act, str(task.id), rules)
        except ClonerError as refusal:
            reasons.append(f"task {task.id} of {task.node}: {refusal.message}")
    if reasons:
        raise RefusedError("\n  - ".join(("nothing was queued again", *reasons)), hint="cloner failures")
    return [rows.view_task(connection, rows.get_task(connection, task.id)) for task in found]


def _model(facts: str | None) -> str:
    if facts is None:
        return ""
    dmi = msgspec.json.decode(facts, type=_Named).dmi
    return " ".join(dmi.product.split()) or " ".join(dmi.vendor.split())
