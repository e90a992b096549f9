"""Live progress for whoever watches: events and changed tasks as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from litestar import get
from litestar.params import FromQuery
from litestar.response import ServerSentEvent, ServerSentEventMessage

from cloner_core.admin.tasks import EventView, TaskView
from cloner_server.api.callers import CoreDependency
from cloner_server.core import Core
from cloner_server.state import events
from cloner_server.state import tasks as rows

_LOOK_EVERY_S = 0.4
_KEEP_ALIVE_S = 15.0
_MOST_TASKS = 10_000  # as `cloner watch` asks for at its start


@get("/stream", sync_to_thread=False)
def stream(core: CoreDependency, after: FromQuery[int | None] = None) -> ServerSentEvent:
    """Send events after one (by default: from now on) as `event`, and live tasks whenever they change as `task`."""
    return ServerSentEvent(_messages(core, after))


def stream_handlers() -> list[Any]:
    """Return the handlers of live progress."""
    return [stream]


async def _messages(core: Core, after: int | None) -> AsyncGenerator[ServerSentEventMessage, None]:
    last, shown, silent_s = after, dict[str, TaskView](), 0.0
    while not core.stopping.is_set():
        last, new, tasks = await asyncio.to_thread(_look, core, last)
        changed = [task for task in tasks if shown.get(task.id) != task]
        shown = {task.id: task for task in tasks}
        for event in new:
            yield ServerSentEventMessage(event="event", id=str(event.id), data=msgspec.json.encode(event).decode())
        for task in changed:
            yield ServerSentEventMessage(event="task", data=msgspec.json.encode(task).decode())
        silent_s = 0.0 if new or changed else silent_s + _LOOK_EVERY_S
        if silent_s > _KEEP_ALIVE_S:
            silent_s = 0.0
            yield ServerSentEventMessage(comment="")  # so that a closed connection is noticed
        await asyncio.sleep(_LOOK_EVERY_S)


def _look(core: Core, after: int | None) -> tuple[int, list[EventView], list[TaskView]]:
    with core.database.read() as connection:
        last = events.last_id(connection) if after is None else after
        new = events.list_events(connection, after=last)
        return (new[-1].id if new else last), new, rows.list_tasks(connection, live_only=True, limit=_MOST_TASKS)
