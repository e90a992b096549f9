"""Rows of tasks, attempts and logs; the rules are in `cloner_server.tasks`."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, func, insert, select, text, tuple_, update

from cloner_core.admin.tasks import LogEntry, TaskState, TaskView
from cloner_core.errors import ConflictError, NotFoundError
from cloner_core.messages import Cause, Failure, LogLine, Progress, Task
from cloner_server.state import events, waiting
from cloner_server.state.database import Act
from cloner_server.state.tables import LIVE_TASK, attempts, nodes, receipts, task_log, tasks
from cloner_server.tasks.states import Happening, next_state

AnyRow = Row[tuple[Any, ...]]

DEPLOY, ERASE, CAPTURE = "deploy", "erase", "capture"
"""The kinds of tasks."""
LOG_LINES = 20_000
"""Of one task: what an agent sends must not fill the disk, and must not push out the logs of others."""
_LINE_CHARACTERS = 4000


def get_task(connection: Connection, task_id: int | str) -> AnyRow:
    """Return the row of a task; raises NotFoundError."""
    row = None
    if str(task_id).isdecimal() and len(str(task_id)) < 19:
        row = connection.execute(select(tasks).where(tasks.c.id == int(task_id))).one_or_none()
    if row is None:
        raise NotFoundError(f"no such task: '{task_id}'", hint="cloner task list shows all")
    return row


def live_task(connection: Connection, node: str) -> AnyRow | None:
    """Return the task that holds `node`; None when none does."""
    return connection.execute(select(tasks).where(tasks.c.node == node, text(LIVE_TASK))).one_or_none()


def newest_task_id(connection: Connection, node: str) -> int | None:
    """Return the number of the last task made for `node`; None when there was none."""
    found: int | None = connection.execute(select(func.max(tasks.c.id)).where(tasks.c.node == node)).scalar_one()
    return found


def add_task(connection: Connection, act: Act, values: dict[str, Any]) -> AnyRow:
    """Insert a queued task."""
    fixed = {"revision": 1, "state": TaskState.QUEUED.value, "author": act.author}
    fixed |= {"created_s": act.now_s, "changed_s": act.now_s}
    row = connection.execute(insert(tasks).values(values | fixed).returning(tasks)).one()
    told = {k: values[k] for k in ("node", "image", "number", "layout", "layout_number")}
    events.record(connection, act, f"task/{row.id}", "queued", revision=1, **told)
    return row


def happen(
    connection: Connection,
    act: Act,
    task: AnyRow,
    happening: Happening,
    *,
    values: dict[str, Any] | None = None,
    alarm: bool = False,
    **detail: object,
) -> AnyRow:
    """Move a task on: state, revision and event in one; raises RefusedError when it cannot happen now."""
    after = next_state(TaskState(task.state), happening)
    revision = task.revision + 1
    changes = {"state": after.value, "revision": revision, "changed_s": act.now_s} | (values or {})
    same = tasks.c.id == task.id, tasks.c.revision == task.revision
    row = connection.execute(update(tasks).where(*same).values(changes).returning(tasks)).one_or_none()
    if row is None:
        raise ConflictError(f"task {task.id} was changed meanwhile", hint="read it again")
    told = {"state": after.value, "node": task.node} | detail
    events.record(connection, act, f"task/{task.id}", happening.value, revision=revision, alarm=alarm, **told)
    return row


def set_stage(connection: Connection, act: Act, task: AnyRow, stage: str) -> None:
    """Note the stage a running task has reached."""
    if task.stage == stage:
        return
    values = {"stage": stage, "changed_s": act.now_s}
    connection.execute(update(tasks).where(tasks.c.id == task.id).values(values))
    events.record(connection, act, f"task/{task.id}", "stage", revision=task.revision, stage=stage, node=task.node)


def cause_of(task: AnyRow) -> Cause | None:
    """Return why a task failed; None for one that did not."""
    return msgspec.json.decode(task.failure, type=Failure).cause if task.failure else None


def last_attempt(connection: Connection, task_id: int) -> AnyRow | None:
    """Return the newest attempt of a task; None before the first."""
    query = select(attempts).where(attempts.c.task == task_id).order_by(attempts.c.number.desc()).limit(1)
    return connection.execute(query).one_or_none()


def netboot_for(task: AnyRow) -> str:
    """Return what the field netboot says while the task is to be done."""
    if task.session:
        return "cloner-multicast"
    return "capture" if task.kind == CAPTURE else "cloner"


def is_as_armed(connection: Connection, task: AnyRow) -> bool:
    """Return whether netboot of the node is what the task made it: nobody has asked for something else since.

    A node that was told to wait for a session since has a row that says so; the agent of a task begins without.
    """
    netboot = connection.execute(select(nodes.c.netboot).where(nodes.c.name == task.node)).scalar_one_or_none()
    return netboot == netboot_for(task) and waiting.of_node(connection, task.node) is None


def is_disk_touched(connection: Connection, node: str, *, but_for: str = "") -> bool:
    """Return whether an attempt on `node` may have cost it its old content; `but_for` is one not asked about.

    True for one that said so, and for one that was told to go ahead and never reported its end: a power cut may
    come between the first write and the beat that would tell of it. The attempts of every task of the node are asked,
    from its newest receipt on: that one said what is on the disk; and from the newest task on that was armed while
    netboot was `local`.
    """
    order = attempts.c.task, attempts.c.number
    settled = select(*order).join(receipts, receipts.c.attempt == attempts.c.id).where(receipts.c.node == node)
    last = connection.execute(settled.order_by(*(column.desc() for column in order)).limit(1)).one_or_none()
    is_silent = attempts.c.plan_digest.is_not(None) & (attempts.c.state != "ended")
    of_node = tasks.c.node == node, tasks.c.id >= _armed_at_local(connection, node), attempts.c.id != but_for
    query = select(attempts.c.id).join(tasks, tasks.c.id == attempts.c.task)
    query = query.where(*of_node, attempts.c.is_destroyed | is_silent)
    if last is not None:
        query = query.where(tuple_(*order) > tuple_(last.task, last.number))
    return connection.execute(query.limit(1)).first() is not None


def _armed_at_local(connection: Connection, node: str) -> int:
    """Return the newest task of `node` that took its netboot from `local`, 0 for none.

    Nothing here sends a node to a disk that was touched: a person did, who knows what is on it now.
    """
    for event in reversed(events.list_events(connection, obj=f"node/{node}", newest=True)):
        if event.what == "netboot" and event.detail["before"] == "local":
            word, _, number = event.detail["why"].partition(" ")
            return int(number) if word == "task" and number.isdecimal() else 0
    return 0


def told_tasks(connection: Connection) -> list[Task]:
    """Return what the attempts that may still fetch were told: those of deploys."""
    query = select(attempts.c.told).join(tasks, tasks.c.id == attempts.c.task)
    query = query.where(attempts.c.state == "live", tasks.c.kind == DEPLOY)
    return [msgspec.json.decode(text, type=Task) for text in connection.execute(query).scalars()]


def change_attempt(connection: Connection, attempt_id: str, **values: object) -> None:
    """Set columns of an attempt."""
    connection.execute(update(attempts).where(attempts.c.id == attempt_id).values(values))


def append_log(connection: Connection, task_id: int, attempt_id: str, lines: tuple[LogLine, ...]) -> None:
    """Keep lines of the agent's log, in the order they came; of a task the newest `LOG_LINES`."""
    if lines:
        told = {"task": task_id, "attempt": attempt_id}
        rows = [
            told | {"time_s": x.time_s, "level": x.level[:16], "text": x.text[:_LINE_CHARACTERS]}
            for x in lines[-LOG_LINES:]
        ]
        connection.execute(insert(task_log), rows)
        of_task = task_log.c.task == task_id
        cut = select(task_log.c.id).where(of_task).order_by(task_log.c.id.desc()).offset(LOG_LINES).limit(1)
        connection.execute(delete(task_log).where(of_task, task_log.c.id <= cut.scalar_subquery()))


def list_log(connection: Connection, task_id: int, *, after: int = 0, limit: int = 10_000) -> list[LogEntry]:
    """Return the lines of a task's log with an id above `after`."""
    query = select(task_log).where(task_log.c.task == task_id, task_log.c.id > after)
    rows = connection.execute(query.order_by(task_log.c.id).limit(limit))
    return [LogEntry(id=r.id, attempt=r.attempt, time_s=r.time_s, level=r.level, text=r.text) for r in rows]


def view_task(connection: Connection, row: AnyRow) -> TaskView:
    """Return a task as an admin sees it."""
    attempt = last_attempt(connection, row.id)
    progress = attempt.progress if attempt is not None else None
    return TaskView(
        id=str(row.id),
        revision=row.revision,
        node=row.node,
        kind=row.kind,
        state=TaskState(row.state),
        stage=row.stage,
        image=row.image,
        version=row.number,
        digest=row.digest,
        layout=row.layout,
        layout_number=row.layout_number,
        scripts=row.scripts_number,
        session=str(row.session or ""),
        author=row.author,
        created_s=row.created_s,
        changed_s=row.changed_s,
        attempts=0 if attempt is None else attempt.number,
        progress=None if progress is None else msgspec.json.decode(progress, type=Progress),
        failure=None if row.failure is None else msgspec.json.decode(row.failure, type=Failure),
        confirm="" if attempt is None else attempt.confirm,
        confirmed_by=row.confirmed_by,
    )


def list_tasks(connection: Connection, *, node: str = "", live_only: bool = False, limit: int = 200) -> list[TaskView]:
    """Return tasks, the newest first."""
    query = select(tasks).order_by(tasks.c.id.desc()).limit(limit)
    if node:
        query = query.where(tasks.c.node == node)
    if live_only:
        query = query.where(text(LIVE_TASK))
    return [view_task(connection, row) for row in connection.execute(query)]


def count_by_state(connection: Connection) -> dict[str, int]:
    """Return how many tasks are in each state."""
    rows = connection.execute(select(tasks.c.state, func.count()).group_by(tasks.c.state))
    return dict(sorted((state, count) for state, count in rows))
