"""Failures over the API of admins: what is not well, bundles, and queueing many again."""

from __future__ import annotations

from typing import Any

from litestar import get, post
from litestar.params import FromPath, JSONBody

from cloner_core.admin.tasks import TaskView
from cloner_core.bundle import BundleView
from cloner_core.failures import NotWell, RetryRequest
from cloner_server.api.callers import CoreDependency, who
from cloner_server.api.faults import AnyRequest
from cloner_server.state import bundles
from cloner_server.tasks import recovery

_OK = 200


@get("/failures", sync_to_thread=True)
def failures_list(core: CoreDependency) -> list[NotWell]:
    """List the nodes whose newest task is failed, frozen or lost."""
    with core.database.read() as connection:
        return recovery.not_well(connection)


@post("/failures/retry", sync_to_thread=True, status_code=_OK)
def failures_retry(core: CoreDependency, request: AnyRequest, data: JSONBody[RetryRequest]) -> list[TaskView]:
    """Queue failed tasks once more: all of them, or none."""
    with core.database.trial(data.dry_run) as connection:
        return recovery.retry_failed(connection, who(core, request), data, core.rules)


@get("/tasks/{task_id:str}/bundle", sync_to_thread=True)
def task_bundle(core: CoreDependency, task_id: FromPath[str]) -> BundleView:
    """Show the newest bundle of a task."""
    with core.database.read() as connection:
        return bundles.find_bundle(connection, task_id)


def failure_handlers() -> list[Any]:
    """Return the handlers of failures."""
    return [failures_list, failures_retry, task_bundle]
