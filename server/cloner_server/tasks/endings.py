"""How a task ends: receipt, failure, confirmation, abort, and how it begins anew.

Receipt, state and netboot change in one transaction; what was acknowledged is on disk.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, insert, select, update

from cloner_core.admin.consoles import ConsoleOutcome
from cloner_core.admin.nodes import NodeView
from cloner_core.admin.tasks import TaskState
from cloner_core.confirmation import ConsoleLine, console_proof
from cloner_core.erasing.words import EraseReceipt
from cloner_core.errors import ClonerError, NotFoundError, RefusedError
from cloner_core.messages import (
    Cause,
    Confirm,
    ConfirmWay,
    Failure,
    Receipt,
    ReceiptBody,
    Stage,
    Task,
    receipt_statement,
)
from cloner_core.plan import Written
from cloner_server.state import events, images, nodes
from cloner_server.state import tasks as rows
from cloner_server.state.database import Act
from cloner_server.state.tables import attempts, claims, receipts
from cloner_server.state.tasks import AnyRow
from cloner_server.tasks import bootclaims, multicasting
from cloner_server.tasks.arming import release_attempts
from cloner_server.tasks.attempts import Bearer, require_active
from cloner_server.tasks.erasing import erase_receipt
from cloner_server.tasks.rules import Rules, token_hash
from cloner_server.tasks.states import Happening, can_happen

_LATE = (Cause.UNCONFIRMED, Cause.BOOT_LOOP)
"""Failures that a clone disproves by calling after all."""


def accept_receipt(
    connection: Connection,
    act: Act,
    bearer: Bearer,
    body: ReceiptBody,
    *,
    packs: str,
    machine_id: str,
    sign: Callable[[bytes], bytes],
) -> Receipt:
    """Check and keep the receipt, end the deploy and flip netboot to `local`; a second time it is only returned.

    `packs` is the digest of the list of packs the attempt was to verify, "" when it is not known now.
    Raises RefusedError naming every field that contradicts what the server knows.
    """
    attempt, task = bearer.attempt, bearer.task
    query = select(receipts).where(receipts.c.attempt == attempt.id)
    if (kept := connection.execute(query).one_or_none()) is not None:
        return _receipt(kept)
    require_active(bearer)
    if attempt.committed_s is None:
        raise RefusedError("a receipt is accepted after the commit was granted, not before")
    expected: dict[str, object] = {
        "task_id": str(task.id),
        "attempt_id": attempt.id,
        "node": task.node,
        "version_digest": task.digest,
        "layout": task.layout,
        "plan_digest": attempt.plan_digest,
        "machine_id": machine_id,
    }
    if attempt.planned is not None:  # NULL: its plan was confirmed by a server that did not keep this yet
        expected |= msgspec.structs.asdict(msgspec.json.decode(attempt.planned, type=Written))
    if packs and body.packs_digest is not msgspec.UNSET:  # agents of before tell none
        expected["packs_digest"] = packs
    if body.scripts is not msgspec.UNSET:
        told = msgspec.json.decode(attempt.told, type=Task).scripts
        ran = [(run.type, run.name, run.digest) for run in body.scripts]
        if sorted(ran) != sorted((script.type, script.name, script.digest) for script in told.scripts):
            expected["scripts"] = f"those of set {told.number}"
    wrong = [
        f"{name} is '{getattr(body, name)}', want '{want}'"
        for name, want in expected.items()
        if getattr(body, name) != want
    ]
    if wrong:
        raise RefusedError(
            "the receipt contradicts the task: " + "; ".join(wrong),
            hint="what is on the disk is not what was planned: do not boot it; report it with the log of the task",
        )
    is_final = attempt.confirm == ConfirmWay.NONE
    receipt = Receipt(
        body=body,
        accepted_s=act.now_s,
        confirmed_s=None,
        signature=sign(receipt_statement(body, act.now_s)).hex(),
        confirmed_by=ConfirmWay.NONE.value if is_final else "",
    )
    row = {
        "attempt": attempt.id,
        "task": task.id,
        "node": task.node,
        "body": msgspec.json.encode(body).decode(),
        "accepted_s": act.now_s,
        "signature": receipt.signature,
        "confirmed_by": receipt.confirmed_by,
    }
    connection.execute(insert(receipts).values(row))
    happening = Happening.RECEIPT_FINAL if is_final else Happening.RECEIPT
    values = {"stage": Stage.RECEIPT.value, "confirmed_by": receipt.confirmed_by}
    rows.happen(connection, act, task, happening, values=values, attempt=attempt.id)
    nodes.set_netboot(connection, act, task.node, "local", why=f"receipt of task {task.id}")
    rows.change_attempt(connection, attempt.id, state="ended", beat_s=act.now_s)
    return receipt


def accept_failure(connection: Connection, act: Act, bearer: Bearer, failure: Failure) -> None:
    """End the attempt as failed. Untouched disks: netboot back to `local`, unless somebody has set it to something else
    since the task was aborted. Else the agent holds until `retry`.

    Disks that a former attempt touched are not untouched because this one failed early; then the node waits at its
    boot script.
    """
    attempt, task = bearer.attempt, bearer.task
    if attempt.state != "live":
        return  # reported before; or released meanwhile, and the next beat says so
    is_destroyed = failure.is_destroyed or attempt.is_destroyed
    is_destroyed = is_destroyed or rows.is_disk_touched(connection, task.node, but_for=attempt.id)
    failure = msgspec.structs.replace(failure, is_destroyed=is_destroyed)
    text = msgspec.json.encode(failure).decode()
    if can_happen(TaskState(task.state), Happening.FAIL):
        told = {"stage": failure.stage.value, "cause": failure.cause.value, "message": failure.message}
        values = {"failure": text, "stage": failure.stage.value}
        rows.happen(connection, act, task, Happening.FAIL, values=values, alarm=True, attempt=attempt.id, **told)
    why = f"task {task.id} failed before it touched a disk"
    _end_attempt(connection, act, task, attempt.id, is_destroyed=is_destroyed, why=why)


def forsake(connection: Connection, act: Act, task: AnyRow, attempt_id: str) -> None:
    """End the attempt of an aborted task whose agent does not say any more how it ended."""
    is_touched = rows.is_disk_touched(connection, task.node)
    why = f"task {task.id} aborted, and its agent is silent"
    _end_attempt(connection, act, task, attempt_id, is_destroyed=is_touched, why=why)


def _end_attempt(
    connection: Connection, act: Act, task: AnyRow, attempt_id: str, *, is_destroyed: bool, why: str
) -> None:
    if is_destroyed:
        rows.change_attempt(connection, attempt_id, state="holding", is_destroyed=True)
        return
    rows.change_attempt(connection, attempt_id, state="ended", ended_s=act.now_s)
    if rows.is_as_armed(connection, task):
        nodes.set_netboot(connection, act, task.node, "local", why=why)


def accept_confirm(connection: Connection, act: Act, message: Confirm) -> ClonerError | None:
    """The clone calls: done, if it is the one the receipt speaks of. A refusal is returned, for its alarm must stay."""
    attempt = connection.execute(
        select(attempts).where(attempts.c.confirm_hash == token_hash(message.secret))
    ).one_or_none()
    if attempt is None:
        events.record_seldom(
            connection, act, "site", "confirmation refused", is_network=True, why="the secret is unknown"
        )
        return RefusedError("the confirmation is not known")
    kept = connection.execute(select(receipts).where(receipts.c.attempt == attempt.id)).one_or_none()
    if kept is None:
        why = (
            "its deploy was cut off after the commit, before the receipt; restarted over the network it is cloned again"
        )
        seldom: dict[str, Any] = {"most": 1, "within_s": 3600.0}
        events.record_seldom(
            connection, act, f"task/{attempt.task}", "a clone without a receipt calls", alarm=True, why=why, **seldom
        )
        return RefusedError(f"there is no receipt of this clone: {why}")
    return _accept(connection, act, message, attempt, kept, by=ConfirmWay.PHONE_HOME)


def accept_line(connection: Connection, act: Act, line: ConsoleLine) -> ConsoleOutcome:
    """A clone said on its console that it booted."""
    attempt = connection.execute(select(attempts).where(attempts.c.id == line.attempt)).one_or_none()
    refusal = _judge_line(connection, act, line)
    return ConsoleOutcome(
        attempt=line.attempt,
        node="" if attempt is None else rows.get_task(connection, attempt.task).node,
        task_id="" if attempt is None else str(attempt.task),
        refusal="" if refusal is None else str(refusal),
    )


def _judge_line(connection: Connection, act: Act, line: ConsoleLine) -> ClonerError | None:
    attempt = connection.execute(select(attempts).where(attempts.c.id == line.attempt)).one_or_none()
    kept = None
    if attempt is not None:
        kept = connection.execute(select(receipts).where(receipts.c.attempt == attempt.id)).one_or_none()
    if attempt is None or kept is None:
        return NotFoundError(f"no receipt of an attempt '{line.attempt}' is known", hint="is it of another server?")
    wanted = console_proof(attempt.confirm_hash, line.machine_id, line.boot_id, line.root_part_uuid)
    if not hmac.compare_digest(line.proof.encode(), wanted.encode()):
        why = "the proof of the console's line is not made with the secret of the attempt"
        events.record(connection, act, f"task/{attempt.task}", "confirmation refused", alarm=True, why=why)
        return RefusedError(why, hint="a line can be damaged by others on the console; the clone says it three times")
    said = Confirm("", line.machine_id, line.boot_id, line.root_part_uuid)
    return _accept(connection, act, said, attempt, kept, by=ConfirmWay.CONSOLE)


def _accept(
    connection: Connection, act: Act, said: Confirm, attempt: AnyRow, kept: AnyRow, *, by: ConfirmWay
) -> ClonerError | None:
    """Confirm by what a clone said of itself, once its secret was shown to be known."""
    task, body = rows.get_task(connection, attempt.task), msgspec.json.decode(kept.body, type=ReceiptBody)
    told: dict[str, Any] = {
        "machine_id": said.machine_id.lower(),
        "root_part_uuid": said.root_part_uuid.lower(),
    }
    wrong = [name for name, value in told.items() if value != getattr(body, name).lower()]
    if wrong:
        why = f"{', '.join(wrong)} not as in the receipt"
        events.record_seldom(connection, act, f"task/{task.id}", "confirmation refused", alarm=True, why=why, **told)
        return RefusedError(f"the confirmation does not fit the receipt: {why}")
    if kept.confirmed_s is not None:
        return None
    last = rows.last_attempt(connection, task.id)
    if last is None or last.id != attempt.id or not is_unconfirmed(task):
        return RefusedError(f"task {task.id} is {task.state}")
    confirm(connection, act, task, attempt, by=by, boot_id=said.boot_id)
    return None


def is_unconfirmed(task: AnyRow) -> bool:
    """Tell whether a clone of the task may still confirm: it waits for it, or failed for nothing else."""
    state = TaskState(task.state)
    return state is TaskState.UNCONFIRMED or (state is TaskState.FAILED and rows.cause_of(task) in _LATE)


def confirm(connection: Connection, act: Act, task: AnyRow, attempt: AnyRow, *, by: ConfirmWay, **told: str) -> None:
    """End a task as done: its clone has proven that it booted; `told` is what else is known of that."""
    done = {"confirmed_s": act.now_s, "confirmed_by": by.value, "boot_id": told.get("boot_id", "")}
    connection.execute(update(receipts).where(receipts.c.attempt == attempt.id).values(done))
    values = {"failure": None, "stage": "", "confirmed_by": by.value}
    detail: dict[str, Any] = {"by": by.value} | told
    rows.happen(connection, act, task, Happening.CONFIRM, values=values, **detail)


def fail_clone(connection: Connection, act: Act, task: AnyRow, *, cause: Cause, message: str, hint: str) -> None:
    """Fail a task whose clone is on disk already and does not show up."""
    _fail(connection, act, task, Failure(Stage.REBOOT, cause, message, hint, is_destroyed=True))


def fail_boot(connection: Connection, act: Act, task: AnyRow, *, message: str, hint: str) -> None:
    """Fail a task whose node fetched its boot script and whose agent never came.

    What was not touched boots again: netboot goes back to `local`, so that a machine which restarts for ever ends that.
    """
    is_touched = rows.is_disk_touched(connection, task.node)
    _fail(connection, act, task, Failure(Stage.HELLO, Cause.BOOT, message, hint, is_destroyed=is_touched))
    if not is_touched:
        nodes.set_netboot(connection, act, task.node, "local", why=f"task {task.id} failed before it touched a disk")


def _fail(connection: Connection, act: Act, task: AnyRow, failure: Failure) -> None:
    values = {"failure": msgspec.json.encode(failure).decode()}
    told = {"cause": failure.cause.value, "message": failure.message}
    rows.happen(connection, act, task, Happening.FAIL, values=values, alarm=True, **told)


def abort_task(connection: Connection, act: Act, task_id: str) -> AnyRow:
    """Stop a task; an agent at work stops at its next beat and reports whether disks were touched.

    Raises RefusedError for one that has ended.
    """
    task = rows.get_task(connection, task_id)
    if not can_happen(TaskState(task.state), Happening.ABORT):
        is_done = TaskState(task.state) is TaskState.DONE
        again = f"cloner task retry {task.id}, or cloner deploy --nodes {task.node}"
        raise RefusedError(
            f"task {task.id} is {task.state}: there is nothing to abort",
            hint=f"cloner task show {task.id} says how it ended" if is_done else again,
        )
    attempt = rows.last_attempt(connection, task.id)
    after = rows.happen(connection, act, task, Happening.ABORT)
    expire_claims(connection, claims.c.task == task.id)
    is_standing = attempt is not None and attempt.state in ("live", "holding")
    if is_standing and TaskState(task.state) is not TaskState.LOST:
        return after  # its failure will say what netboot becomes, or its silence
    if not rows.is_disk_touched(connection, task.node):
        nodes.set_netboot(connection, act, task.node, "local", why=f"task {task.id} aborted")
    return after


def send_home(connection: Connection, act: Act, node: str) -> NodeView:
    """Set netboot of `node` to `local` because somebody asked for it: an agent that boots yet comes for nothing."""
    expire_claims(connection, claims.c.node == node)
    for obj in (f"node/{node}", f"waiting/{node}"):
        bootclaims.forget(connection, obj)
    return nodes.set_netboot(connection, act, node, "local", why="asked for")


def expire_claims(connection: Connection, which: ColumnElement[bool]) -> None:
    """Take back the claims no agent has used yet."""
    connection.execute(update(claims).where(which, claims.c.used_s.is_(None)).values(expires_s=0.0))


def retry_task(connection: Connection, act: Act, task_id: str, rules: Rules) -> AnyRow:
    """Queue a failed, frozen or aborted task once more, with the same version and layout.

    Raises RefusedError when a later task followed it on its node: what that made is not the old task's to destroy.
    """
    task = rows.get_task(connection, task_id)
    node = nodes.get_node(connection, task.node)
    live = rows.live_task(connection, task.node)
    if live is not None and live.id != task.id:
        raise RefusedError(
            f"{task.node} has task {live.id}, which is {live.state}", hint=f"cloner task abort {live.id}"
        )
    newest = rows.newest_task_id(connection, task.node)
    if newest is not None and newest != task.id:
        later = rows.get_task(connection, newest)
        raise RefusedError(
            f"{task.node} had task {later.id} since, which is {later.state}",
            hint=f"cloner task retry {later.id}, or cloner deploy --nodes {task.node}",
        )
    if task.kind != rows.CAPTURE:  # which writes to no disk
        nodes.refuse_protected(node)
    if task.kind == rows.DEPLOY:
        nodes.refuse_unwritable(node)
        _require_version(connection, task)
    attempt = rows.last_attempt(connection, task.id)
    allowed = rules.attempts + (0 if attempt is None else attempt.number)
    values: dict[str, Any] = {"failure": None, "stage": "", "confirmed_by": "", "attempts_allowed": allowed}
    values["session"] = multicasting.rejoin(connection, act, task)
    after = rows.happen(connection, act, task, Happening.RETRY, values=values)
    release_attempts(connection, task.node)
    nodes.set_netboot(connection, act, task.node, rows.netboot_for(after), why=f"task {task.id} retried")
    return after


def _require_version(connection: Connection, task: AnyRow) -> None:
    try:
        images.get_version(connection, task.image, task.number)
    except NotFoundError:
        raise RefusedError(
            f"{task.image}:{task.number}, which task {task.id} is of, was removed",
            hint=f"cloner deploy --nodes {task.node} arms another version",
        ) from None


def find_receipt(connection: Connection, key: str) -> Receipt | EraseReceipt:
    """Return the newest receipt of a task id or a node name; raises NotFoundError."""
    of = receipts.c.task == int(key) if key.isdecimal() and len(key) < 19 else receipts.c.node == key
    found = _newest_receipt(connection, of)
    if found is None:
        raise NotFoundError(f"there is no receipt of '{key}'", hint="cloner task list shows what became of its tasks")
    return found


def receipt_of_node(connection: Connection, node: str) -> Receipt | EraseReceipt | None:
    """Return the newest receipt of a node, whatever its name looks like; None when there is none."""
    return _newest_receipt(connection, receipts.c.node == node)


def _newest_receipt(connection: Connection, of: ColumnElement[bool]) -> Receipt | EraseReceipt | None:
    row = connection.execute(select(receipts).where(of).order_by(receipts.c.accepted_s.desc()).limit(1)).one_or_none()
    if row is None:
        return None
    return erase_receipt(row) if row.kind == rows.ERASE else _receipt(row)


def _receipt(row: AnyRow) -> Receipt:
    body = msgspec.json.decode(row.body, type=ReceiptBody)
    times = {"accepted_s": row.accepted_s, "confirmed_s": row.confirmed_s}
    return Receipt(body=body, **times, signature=row.signature, confirmed_by=row.confirmed_by)
