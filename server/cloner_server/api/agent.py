"""The API of agents. Control requests show credential and proof; blobs the credential alone (docs/api.md)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, TypeVar

from litestar import Router, get, post
from litestar.params import FromPath, RawBody
from litestar.types import ASGIApp

from cloner_core.atrest import CaptureReply
from cloner_core.bundle import MAX_BUNDLE_BYTES, Bundle, redact_bundle
from cloner_core.erasing.words import EraseReceipt, EraseReceiptBody, EraseReply, EraseTask
from cloner_core.errors import ClonerError, InvalidError, RefusedError
from cloner_core.facts import Facts, fingerprint
from cloner_core.image.packmap import packs_digest
from cloner_core.messages import (
    Beat,
    BeatReply,
    Discovered,
    DiscoverFailure,
    Failure,
    Granted,
    Hello,
    HelloReply,
    PlanReport,
    Receipt,
    ReceiptBody,
    Task,
    Vaulted,
)
from cloner_core.plan import wanted_of
from cloner_core.steps import BootFiles
from cloner_server import planning, vault
from cloner_server.api.callers import CoreDependency
from cloner_server.api.credentials import author_of, bearer_of, credential_of, decode_body
from cloner_server.api.faults import AnyRequest
from cloner_server.api.grants import granted_version, task_version
from cloner_server.api.parts import send_pack, send_part
from cloner_server.api.seats import address_of, require_key, require_protocol, seat_handlers
from cloner_server.catalog import Part, Version
from cloner_server.core import Core
from cloner_server.state import tasks as rows
from cloner_server.tasks import attempts, claims, discovery, endings, erasing
from cloner_server.tasks.attempts import Bearer

log = logging.getLogger(__name__)

T = TypeVar("T")
_OK = 200


@post("/hello", sync_to_thread=True, status_code=_OK)
def hello(core: CoreDependency, request: AnyRequest, body: RawBody) -> HelloReply | EraseReply | CaptureReply:
    """Exchange the claim of a boot script for an attempt."""
    message = _hello(body)
    with core.database.write() as connection:
        act = core.act(f"agent {fingerprint(message.facts)}")
        reply = claims.accept_hello(connection, act, message, core.rules, core.catalog, address=address_of(request))
    if isinstance(reply, ClonerError):
        raise reply  # after the transaction: its alarm is written
    return reply


@post("/discover", sync_to_thread=True, status_code=_OK)
def discover(core: CoreDependency, body: RawBody) -> Discovered:
    """Keep the facts of a machine whose inventory was asked for."""
    message = _hello(body)
    with core.database.write() as connection:
        act = core.act(f"agent {fingerprint(message.facts)}")
        reply = discovery.accept_facts(connection, act, message, core.rules)
    if isinstance(reply, ClonerError):
        raise reply  # after the transaction: its alarm is written
    return reply


@post("/discover/fail", sync_to_thread=True, status_code=_OK)
def discover_fail(core: CoreDependency, body: RawBody) -> Granted:
    """Take the word of an agent that it could take no inventory."""
    message = decode_body(body, DiscoverFailure)
    with core.database.write() as connection:
        refusal = discovery.accept_failure(connection, core.act("agent"), message)
    if refusal is not None:
        raise refusal
    return Granted()


@post("/attempts/{attempt_id:str}/beat", sync_to_thread=True, status_code=_OK)
def beat(core: CoreDependency, request: AnyRequest, attempt_id: FromPath[str], body: RawBody) -> BeatReply:
    """Take a heartbeat and say what to do."""
    with core.database.write() as connection:
        bearer = bearer_of(connection, request, body, attempt_id)
        message = decode_body(body, Beat)  # a stranger's body is not looked into
        return attempts.beat(connection, core.act(author_of(bearer)), bearer, message, address=address_of(request))


@post("/attempts/{attempt_id:str}/plan", status_code=_OK)
async def plan(core: CoreDependency, request: AnyRequest, attempt_id: FromPath[str], body: RawBody) -> Granted:
    """Compare the agent's plan with the server's own; from here on disks may be destroyed."""
    bearer = await asyncio.to_thread(_active_bearer, core, request, body, attempt_id)
    if bearer.task.kind == rows.CAPTURE:
        raise RefusedError(f"task {bearer.task.id} captures: it has no plan")
    if bearer.task.kind == rows.ERASE:
        erase = planning.expected_erase(
            decode_body(bearer.attempt.facts, Facts), decode_body(bearer.attempt.told, EraseTask)
        )
        await asyncio.to_thread(_confirm_plan, core, request, body, erase)
        return Granted()
    facts, version, told = await asyncio.to_thread(_planned, core, bearer)
    await core.verifier.verify(version)
    made = planning.expected_plan(facts, told, version)
    for step in made.steps:
        if isinstance(step.action, BootFiles):
            await core.verifier.require_bootable(version, step.action, facts.arch)
    await core.verifier.require_unlockable(version, wanted_of(told.layout))
    expected = planning.expected_of(made)
    await asyncio.to_thread(_confirm_plan, core, request, body, expected)
    return Granted()


@post("/attempts/{attempt_id:str}/identity", sync_to_thread=True, status_code=_OK)
def identity(core: CoreDependency, request: AnyRequest, attempt_id: FromPath[str], body: RawBody) -> Vaulted:
    """Release the secret half of the node's identity to its accepted hardware."""
    with core.database.write() as connection:
        bearer = bearer_of(connection, request, body, attempt_id)
        return attempts.release_identity(connection, core.act(author_of(bearer)), bearer, core.site.vault_key)


@post("/attempts/{attempt_id:str}/commit", sync_to_thread=True, status_code=_OK)
def commit(core: CoreDependency, request: AnyRequest, attempt_id: FromPath[str], body: RawBody) -> Granted:
    """Grant that the disk be made bootable."""
    with core.database.write() as connection:
        bearer = bearer_of(connection, request, body, attempt_id)
        attempts.grant_commit(connection, core.act(author_of(bearer)), bearer)
    return Granted()


@post("/attempts/{attempt_id:str}/receipt", sync_to_thread=True, status_code=_OK)
def receipt(
    core: CoreDependency, request: AnyRequest, attempt_id: FromPath[str], body: RawBody
) -> Receipt | EraseReceipt:
    """Take the receipt, end the task, flip netboot: one transaction, then the answer."""
    with core.database.write() as connection:
        bearer = bearer_of(connection, request, body, attempt_id)
        if bearer.task.kind == rows.ERASE:
            erased = decode_body(body, EraseReceiptBody)
            return erasing.accept_erased(connection, core.act(author_of(bearer)), bearer, erased, core.site.sign)
        attempts.require_deploy(bearer)
        message = decode_body(body, ReceiptBody)  # a stranger's body is not looked into
        return endings.accept_receipt(
            connection,
            core.act(author_of(bearer)),
            bearer,
            message,
            packs=_packs_of(core, bearer),
            machine_id=vault.machine_id(connection, bearer.task.node, core.site.vault_key),
            sign=core.site.sign,
        )


@post("/attempts/{attempt_id:str}/fail", sync_to_thread=True, status_code=_OK)
def fail(core: CoreDependency, request: AnyRequest, attempt_id: FromPath[str], body: RawBody) -> Granted:
    """Take the failure of an attempt."""
    with core.database.write() as connection:
        bearer = bearer_of(connection, request, body, attempt_id)
        message = decode_body(body, Failure)  # a stranger's body is not looked into
        endings.accept_failure(connection, core.act(author_of(bearer)), bearer, message)
    return Granted()


@post("/attempts/{attempt_id:str}/bundle", sync_to_thread=True, status_code=_OK)
def bundle(core: CoreDependency, request: AnyRequest, attempt_id: FromPath[str], body: RawBody) -> Granted:
    """Keep what the agent saw of its failure, if there was one."""
    if len(body) > MAX_BUNDLE_BYTES:
        raise InvalidError(f"the bundle has {len(body)} bytes, at most {MAX_BUNDLE_BYTES} are taken")
    with core.database.read() as connection:  # a stranger's megabyte is not looked into
        bearer_of(connection, request, body, attempt_id)
    message = redact_bundle(decode_body(body, Bundle))
    with core.database.write() as connection:
        bearer = bearer_of(connection, request, body, attempt_id)
        attempts.keep_bundle(connection, core.act(author_of(bearer)), bearer, message)
    return Granted()


@post("/attempts/{attempt_id:str}/rebooting", sync_to_thread=True, status_code=_OK)
def rebooting(core: CoreDependency, request: AnyRequest, attempt_id: FromPath[str], body: RawBody) -> Granted:
    """Take the agent's good-bye."""
    with core.database.write() as connection:
        bearer = bearer_of(connection, request, body, attempt_id)
        attempts.note_reboot(connection, core.act(author_of(bearer)), bearer)
    return Granted()


@get("/versions/{digest:str}/verified")
async def verified(core: CoreDependency, request: AnyRequest, digest: FromPath[str]) -> Granted:
    """Assert that every part of the version is present and whole, having read it."""
    await core.verifier.verify(await asyncio.to_thread(task_version, core, request, digest))
    return Granted()


@get("/versions/{digest:str}/root", sync_to_thread=True)
def root(core: CoreDependency, request: AnyRequest, digest: FromPath[str]) -> ASGIApp:
    """Send the tree root."""
    return send_part(core.catalog, task_version(core, request, digest), Part.ROOT, digest)


@get("/segments/{digest:str}", sync_to_thread=True)
def segment(core: CoreDependency, request: AnyRequest, digest: FromPath[str]) -> ASGIApp:
    """Send one segment of the task's tree."""
    return send_part(core.catalog, task_version(core, request), Part.SEGMENT, digest)


@get("/packmaps/{digest:str}", sync_to_thread=True)
def pack_map(core: CoreDependency, request: AnyRequest, digest: FromPath[str]) -> ASGIApp:
    """Send the pack map of the task's version."""
    return send_part(core.catalog, task_version(core, request), Part.PACK_MAP, digest)


@get("/versions/{digest:str}/packs/{pack:str}")
async def pack(core: CoreDependency, request: AnyRequest, digest: FromPath[str], pack: FromPath[str]) -> ASGIApp:
    """Send one pack of the task's version, when it is its turn."""
    return send_pack(core.admission, core.catalog, await granted_version(core, request, digest), pack)


@get("/versions/{digest:str}/placements/{pack:str}")
async def placement(core: CoreDependency, request: AnyRequest, digest: FromPath[str], pack: FromPath[str]) -> ASGIApp:
    """Send the placement record that goes with one pack of the task's version."""
    version = await granted_version(core, request, digest)
    return await asyncio.to_thread(send_part, core.catalog, version, Part.PLACEMENT, pack)


def agent_router() -> Router:
    """Return the routes of agents."""
    control: list[Any] = [
        hello,
        discover,
        discover_fail,
        beat,
        plan,
        identity,
        commit,
        receipt,
        fail,
        bundle,
        rebooting,
        *seat_handlers(),
    ]
    blobs: list[Any] = [verified, root, segment, pack_map, pack, placement]
    return Router("/agent/v1", route_handlers=[*control, *blobs], request_max_body_size=4 << 20, tags=["agent"])


def _hello(body: bytes) -> Hello:
    require_protocol(body)
    message = decode_body(body, Hello)
    require_key(message.public_key)
    return message


def _active_bearer(core: Core, request: AnyRequest, body: bytes, attempt_id: str) -> Bearer:
    with core.database.read() as connection:
        bearer = bearer_of(connection, request, body, attempt_id)
    attempts.require_active(bearer)
    return bearer


def _planned(core: Core, bearer: Bearer) -> tuple[Facts, Version, Task]:
    told = decode_body(bearer.attempt.told, Task)
    return decode_body(bearer.attempt.facts, Facts), core.catalog.find(told.version), told


def _confirm_plan(core: Core, request: AnyRequest, body: bytes, expected: planning.Expected) -> None:
    report = decode_body(body, PlanReport)
    with core.database.write() as connection:
        bearer = attempts.authenticate(connection, credential_of(request))
        attempts.confirm_plan(connection, core.act(author_of(bearer)), bearer, report, expected)


def _packs_of(core: Core, bearer: Bearer) -> str:
    """Return the digest of the packs the attempt was to verify; "" when the store cannot say so now."""
    try:
        return packs_digest(core.catalog.find(decode_body(bearer.attempt.told, Task).version).pack_map).hex()
    except (ClonerError, OSError) as fault:
        # The disk is ready: what has happened to the store since must not cost the receipt.
        log.error("the packs of attempt %s are not compared: %s", bearer.attempt.id, fault)
        return ""
