"""What a running attempt asks for: heartbeat, plan, identity, commit.

Only the current attempt of an active task gets any of it.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection, select

from cloner_core.admin.nodes import NodeView
from cloner_core.admin.tasks import TaskState
from cloner_core.atrest import DiskKeys
from cloner_core.bundle import Bundle
from cloner_core.errors import ClonerError, ConflictError, RefusedError
from cloner_core.layout import Layout, Luks
from cloner_core.messages import DESTRUCTIVE_FROM, Beat, BeatReply, PlanReport, Stage, Task, Vaulted, proof_statement
from cloner_server import consoles, hostcertificates, recoverykeys, vault
from cloner_server.planning import Expected
from cloner_server.state import bundles, events, nodes
from cloner_server.state import tasks as rows
from cloner_server.state.database import Act
from cloner_server.state.tables import attempts
from cloner_server.state.tasks import AnyRow
from cloner_server.tasks.rules import token_hash
from cloner_server.tasks.states import ACTIVE, Happening

_ORDER = list(Stage)
_HEARD = ("live", "holding", "released", "ended")  # states of attempts whose credential is still believed


class CredentialError(ClonerError):
    """The credential or the proof is wrong: 401."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One request and what it shows for itself."""

    method: str
    path: str
    body: bytes
    credential: str = field(repr=False)
    proof: str = ""  # hex; "" none


@dataclass(frozen=True, slots=True)
class Bearer:
    """An attempt that has shown its credential, and its task."""

    attempt: AnyRow
    task: AnyRow


def authenticate(connection: Connection, credential: str) -> Bearer:
    """Return whose credential this is; raises CredentialError for an unknown or revoked one."""
    hashed = token_hash(credential)
    row = connection.execute(select(attempts).where(attempts.c.credential_hash == hashed)).one_or_none()
    if row is None or not hmac.compare_digest(row.credential_hash, hashed) or row.state not in _HEARD:
        raise CredentialError(
            "the credential is unknown or revoked", hint="the machine must boot over the network again"
        )
    return Bearer(row, rows.get_task(connection, row.task))


def check_proof(bearer: Bearer, shown: Shown) -> None:
    """Raise CredentialError unless the proof was made for this very request with the attempt's key."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(bearer.attempt.public_key))
        statement = proof_statement(shown.method, shown.path, shown.body, shown.credential)
        key.verify(bytes.fromhex(shown.proof), statement)
    except (InvalidSignature, ValueError) as fault:
        raise CredentialError("the proof of the request is not made with the attempt's key") from fault


def require_active(bearer: Bearer) -> None:
    """Raise RefusedError unless this is the live attempt of a task that is running."""
    if TaskState(bearer.task.state) not in ACTIVE or bearer.attempt.state != "live":
        raise RefusedError(
            f"attempt {bearer.attempt.id} is {bearer.attempt.state}, task {bearer.task.id} is {bearer.task.state}",
            hint=f"cloner task show {bearer.task.id} says why",
        )


def require_deploy(bearer: Bearer) -> None:
    """Raise RefusedError for a task of another kind: it has no part in a version, an identity or a commit."""
    if bearer.task.kind != rows.DEPLOY:
        raise RefusedError(f"task {bearer.task.id} is to {bearer.task.kind}: it restores nothing")


def require_capture(bearer: Bearer) -> None:
    """Raise RefusedError unless this is the live attempt of a task that captures."""
    require_active(bearer)
    if bearer.task.kind != rows.CAPTURE:
        raise RefusedError(f"task {bearer.task.id} is to {bearer.task.kind}: it captures nothing")


def beat(connection: Connection, act: Act, bearer: Bearer, message: Beat, *, address: str = "") -> BeatReply:
    """Keep progress and log, wake a lost task, answer with what the attempt shall do.

    `address` is where the beat came from, "" when that is no IP address.
    """
    attempt, task = bearer.attempt, bearer.task
    values: dict[str, object] = {"beat_s": act.now_s, "progress": msgspec.json.encode(message.progress).decode()}
    is_late = _ORDER.index(message.progress.stage) >= _ORDER.index(DESTRUCTIVE_FROM)
    if is_late and task.kind != rows.CAPTURE:  # which ends with a restart, as all do, and writes to no disk
        values["is_destroyed"] = True
    if address != attempt.address:
        values["address"] = address
    rows.change_attempt(connection, attempt.id, **values)
    consoles.hear(connection, act, attempt, task.node, message.console)
    rows.append_log(connection, task.id, attempt.id, message.log)
    if message.neighbors:
        nodes.remember_neighbors(connection, act, task.node, message.neighbors)
    if TaskState(task.state) in ACTIVE and attempt.state == "live":
        if attempt.rival_s is not None:
            why = "a second machine claimed the task while this attempt beats"
            task = rows.happen(connection, act, task, Happening.FREEZE, alarm=True, why=why, attempt=attempt.id)
        elif TaskState(task.state) is TaskState.LOST:
            task = rows.happen(connection, act, task, Happening.BEAT, attempt=attempt.id)
    if TaskState(task.state) is TaskState.RUNNING and attempt.state == "live":
        rows.set_stage(connection, act, task, message.progress.stage.value)
    return _order(attempt.state, task)


def confirm_plan(connection: Connection, act: Act, bearer: Bearer, report: PlanReport, expected: Expected) -> None:
    """Keep the plan the attempt is going to run; raises ConflictError when the server made another."""
    require_active(bearer)
    digest = expected.digest
    if report.digest != digest:
        raise ConflictError(
            f"the agent planned {report.digest[:16]}…, the server {digest[:16]}…",
            hint="agent and server are of different versions: rebuild the initramfs",
        )
    told = {"plan_digest": digest, "plan": report.rendered, "planned": expected.planned}
    rows.change_attempt(connection, bearer.attempt.id, **told)
    _note(connection, act, bearer, "plan confirmed", digest=report.digest)


def release_disk_keys(connection: Connection, act: Act, bearer: Bearer, key: bytes) -> DiskKeys:
    """Give what may open the disks of the node to its accepted hardware."""
    require_capture(bearer)
    _require_accepted(nodes.get_node(connection, bearer.task.node), bearer)
    found = recoverykeys.list_keys(connection, bearer.task.node, key)
    _note(connection, act, bearer, "disk keys released", numbers=[one.number for one in found])
    return DiskKeys(tuple(one.key for one in found))


def _require_accepted(node: NodeView, bearer: Bearer) -> None:
    if node.fingerprint != bearer.attempt.fingerprint:
        raise RefusedError(
            f"this hardware is not the one accepted for {node.name}",
            hint=f"if it was replaced: cloner node accept {node.name}, then task retry",
        )


def release_identity(connection: Connection, act: Act, bearer: Bearer, key: bytes) -> Vaulted:
    """Open the vault to the accepted hardware, once the plan was confirmed."""
    require_active(bearer)
    require_deploy(bearer)
    node = nodes.get_node(connection, bearer.task.node)
    _require_accepted(node, bearer)
    if bearer.attempt.plan_digest is None:
        raise RefusedError("the identity is released after the plan was confirmed, not before")
    rows.change_attempt(connection, bearer.attempt.id, identity_s=act.now_s)
    _note(connection, act, bearer, "identity released", hardware=node.fingerprint)
    vaulted = vault.open_identity(connection, node.name, key)
    if _encrypts(msgspec.json.decode(bearer.attempt.told, type=Task).layout):
        recovery = recoverykeys.ensure_key(connection, act, node.name, key)
        vaulted = msgspec.structs.replace(vaulted, recovery_key=recovery)
    return hostcertificates.certified(vaulted, node, key, attempt=bearer.attempt.id)


def _encrypts(layout: Layout) -> bool:
    """Tell whether a container is made that a person must be able to open."""
    return any(isinstance(one, Luks) and one.unlock.way != "random" for _, one in layout.contents())


def grant_commit(connection: Connection, act: Act, bearer: Bearer) -> None:
    """Grant the commit: from now on the disk may be made bootable."""
    require_active(bearer)
    require_deploy(bearer)
    if bearer.attempt.identity_s is None:
        raise RefusedError("commit is granted after the identity was written, not before")
    if bearer.attempt.committed_s is None:
        rows.change_attempt(connection, bearer.attempt.id, committed_s=act.now_s)
        _note(connection, act, bearer, "commit granted")


def keep_bundle(connection: Connection, act: Act, bearer: Bearer, bundle: Bundle) -> None:
    """Keep the bundle of an attempt that has told its failure; raises RefusedError for one at work."""
    if bearer.attempt.state == "live":
        raise RefusedError(f"attempt {bearer.attempt.id} is at work: a bundle follows a failure")
    bundles.keep_bundle(connection, act, bearer.task.id, bearer.attempt.id, bundle)


def note_reboot(connection: Connection, act: Act, bearer: Bearer) -> None:
    """The attempt says good-bye; one that never said how it ended is lost from now on, not running for ever."""
    if bearer.attempt.state == "live" and TaskState(bearer.task.state) is TaskState.RUNNING:
        why = "the agent restarts its machine and did not say how it ended"
        rows.happen(connection, act, bearer.task, Happening.SILENCE, attempt=bearer.attempt.id, why=why)
    if bearer.attempt.state != "live" or TaskState(bearer.task.state) is not TaskState.ABORTED:
        rows.change_attempt(connection, bearer.attempt.id, state="ended", ended_s=act.now_s)
    # Else its failure was not told, and its silence says what netboot becomes.
    _note(connection, act, bearer, "rebooting")


def _order(attempt_state: str, task: AnyRow) -> BeatReply:
    state = TaskState(task.state)
    order: Literal["go", "abort", "hold", "retry"] = "go"
    if attempt_state == "released":
        order = "retry"
    elif state is TaskState.ABORTED:
        order = "abort" if attempt_state == "live" else "hold"
    elif state in (TaskState.FROZEN, TaskState.FAILED) or attempt_state == "holding":
        order = "hold"
    return BeatReply(order=order, reason="" if order == "go" else f"task {task.id} is {state.value}")


def _note(connection: Connection, act: Act, bearer: Bearer, what: str, **detail: object) -> None:
    told = {"attempt": bearer.attempt.id, "node": bearer.task.node} | detail
    events.record(connection, act, f"task/{bearer.task.id}", what, revision=bearer.task.revision, **told)
