"""Tasks that erase: what an erase would do to which node, arming it, and the receipt it ends with."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from sqlalchemy import Connection, insert, select

from cloner_core.admin.deploying import DiskToErase, EraseIntent, EraseRequest
from cloner_core.admin.nodes import NodeView
from cloner_core.erasing.plan import ErasePlan, disk_key, plan_erase
from cloner_core.erasing.words import EraseOrder, EraseReceipt, EraseReceiptBody, EraseTask, erase_statement
from cloner_core.errors import ClonerError, InvalidError, NotFoundError, RefusedError
from cloner_core.messages import ConfirmWay, Stage
from cloner_core.refusals import PlanError
from cloner_server.state import nodes
from cloner_server.state import tasks as rows
from cloner_server.state.database import Act
from cloner_server.state.tables import receipts
from cloner_server.state.tasks import AnyRow
from cloner_server.tasks.arming import (
    NO_AGENT,
    all_of,
    at_risk,
    refuse_busy,
    refuse_ourselves,
    release_attempts,
)
from cloner_server.tasks.attempts import Bearer, require_active
from cloner_server.tasks.rules import Rules
from cloner_server.tasks.states import Happening

_UNKNOWN = "the machine has not told its disks yet; they are chosen when it boots, and nobody sees them before"


def intend_erase(connection: Connection, request: EraseRequest, rules: Rules) -> list[EraseIntent]:
    """Return what `request` would do, one entry a node; changes nothing.

    Raises InvalidError, NotFoundError or RefusedError naming every objection found.
    """
    names = list(dict.fromkeys(request.nodes))
    if not names:
        raise InvalidError("no node is named", hint="--nodes node[01-02]")
    if request.order.passes > 1 and request.order.method not in ("auto", "overwrite"):
        raise InvalidError(f"passes are of an overwrite, not of '{request.order.method}'", hint="--method overwrite")
    if len(names) > request.limit:
        raise RefusedError(
            f"{len(names)} nodes are named, at most {request.limit} are erased without saying so",
            hint=f"--max {len(names)} says so",
        )
    known = {node.name: node for node in nodes.list_nodes(connection)}
    objections: list[ClonerError] = []
    if unknown := [name for name in names if name not in known]:
        objections.append(NotFoundError(f"no such node: {', '.join(unknown)}", hint="cloner node list shows all"))
    intents = []
    for node in (known[name] for name in names if name in known):
        try:
            nodes.refuse_protected(node)
            refuse_ourselves(node, rules)
            refuse_busy(connection, node)
            intents.append(_intend_one(connection, node, request.order, rules))
        except RefusedError as fault:
            objections.append(fault)
    if objections:
        raise all_of(objections)
    return intents


def arm_erase(
    connection: Connection, act: Act, intents: list[EraseIntent], order: EraseOrder, rules: Rules
) -> list[EraseIntent]:
    """Queue one task for each intent and have the node get the agent; returns them with their task ids."""
    armed = []
    for intent in intents:
        document = msgspec.structs.replace(order, agreed=intent.agreed)
        values = {
            "node": intent.node,
            "kind": rows.ERASE,
            "image": "",
            "number": 0,
            "digest": "",
            "layout": "",
            "layout_number": 0,
            "document": msgspec.json.encode(document).decode(),
            "attempts_allowed": rules.attempts,
        }
        release_attempts(connection, intent.node)
        row = rows.add_task(connection, act, values)
        nodes.set_netboot(connection, act, intent.node, "cloner", why=f"task {row.id}, which erases")
        armed.append(msgspec.structs.replace(intent, task_id=str(row.id)))
    return armed


def erase_task_for(node: NodeView, document: str, *, task_id: str, attempt_id: str, seed: str) -> EraseTask:
    """Return what an attempt is told to erase."""
    order = msgspec.json.decode(document, type=EraseOrder)
    return EraseTask(task_id, attempt_id, node.name, order, seed, node.protected_serials)


def accept_erased(
    connection: Connection, act: Act, bearer: Bearer, body: EraseReceiptBody, sign: Callable[[bytes], bytes]
) -> EraseReceipt:
    """Check and keep the receipt of an erase, end the task as done and flip netboot to `local`.

    A second time it is only returned. Raises RefusedError naming everything that contradicts the confirmed plan.
    """
    attempt, task = bearer.attempt, bearer.task
    kept = connection.execute(select(receipts).where(receipts.c.attempt == attempt.id)).one_or_none()
    if kept is not None:
        return erase_receipt(kept)
    require_active(bearer)
    if attempt.planned is None:
        raise RefusedError("a receipt is accepted after the plan was confirmed, not before")
    plan = msgspec.json.decode(attempt.planned, type=ErasePlan)
    if wrong := _contradictions(body, bearer, plan):
        raise RefusedError(
            "the receipt contradicts the plan: " + "; ".join(wrong),
            hint="do not take the disks for erased; report it with the log of the task",
        )
    signature = sign(erase_statement(body, act.now_s)).hex()
    row = {
        "attempt": attempt.id,
        "task": task.id,
        "node": task.node,
        "kind": rows.ERASE,
        "body": msgspec.json.encode(body).decode(),
        "accepted_s": act.now_s,
        "signature": signature,
        "confirmed_by": ConfirmWay.NONE.value,
    }
    connection.execute(insert(receipts).values(row))
    values = {"stage": Stage.RECEIPT.value, "confirmed_by": ConfirmWay.NONE.value}
    rows.happen(connection, act, task, Happening.RECEIPT_FINAL, values=values, attempt=attempt.id)
    nodes.set_netboot(connection, act, task.node, "local", why=f"receipt of task {task.id}, which erased")
    # One that holds stands until the next task of its node releases it.
    state = "holding" if plan.then == "hold" else "ended"
    rows.change_attempt(connection, attempt.id, state=state, beat_s=act.now_s)
    return EraseReceipt(body=body, accepted_s=act.now_s, signature=signature)


def erase_receipt(row: AnyRow) -> EraseReceipt:
    """Return a kept receipt."""
    body = msgspec.json.decode(row.body, type=EraseReceiptBody)
    return EraseReceipt(body=body, accepted_s=row.accepted_s, signature=row.signature)


def _contradictions(body: EraseReceiptBody, bearer: Bearer, plan: ErasePlan) -> list[str]:
    expected = {
        "task_id": str(bearer.task.id),
        "attempt_id": bearer.attempt.id,
        "node": bearer.task.node,
        "plan_digest": bearer.attempt.plan_digest,
        "left": plan.left,
    }
    wrong = [
        f"{name} is '{getattr(body, name)}', want '{want}'"
        for name, want in expected.items()
        if getattr(body, name) != want
    ]
    said = [(disk.path, disk.serial, disk.wwn, disk.model, disk.size_bytes) for disk in body.disks]
    planned = [one.disk for one in plan.disks]
    want = [(disk.path, disk.serial, disk.wwn, disk.model, disk.size_bytes) for disk in planned]
    if said != want:
        return [*wrong, f"disks are {said}, want {want}"]
    for disk, one in zip(body.disks, plan.disks, strict=True):
        if disk.way not in one.ways:
            wrong.append(f"{disk.path} was erased by {disk.way}, want {' or '.join(one.ways)}")
        least = disk.size_bytes if "full" in (disk.checked, plan.verify) else 1
        if disk.bytes_read < least or not disk.places or not disk.evidence:
            wrong.append(f"{disk.path}: {disk.bytes_read} bytes of it were read after the erase, want {least}")
    return wrong


def _intend_one(connection: Connection, node: NodeView, order: EraseOrder, rules: Rules) -> EraseIntent:
    notes = () if rules.has_agent else (NO_AGENT,)
    known = nodes.last_facts(connection, node.name)
    intent = EraseIntent(node=node.name, disks=(), left=(), is_known=False, notes=(*notes, _UNKNOWN))
    if known is None:
        return intent
    try:
        task = EraseTask("", "", node.name, msgspec.structs.replace(order, agreed=None), "", node.protected_serials)
        plan = plan_erase(known[0], task)
    except PlanError as fault:
        raise RefusedError(f"{node.name}, by its last inventory: {fault.message}", hint=fault.hint) from fault
    risks = [(at_risk(one.disk), one.ways) for one in plan.disks]
    return EraseIntent(
        node=node.name,
        disks=tuple(DiskToErase(**msgspec.structs.asdict(risk), ways=ways) for risk, ways in risks),
        left=plan.left,
        is_known=True,
        agreed=tuple(disk_key(one.disk) for one in plan.disks),
        notes=(*notes, *plan.notes),
    )
