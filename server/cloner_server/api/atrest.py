"""What the attempt of a capture at rest asks for: a layout, keys of its disks, and a place for the parts of a version.

Who asks is looked at before a body is read; the proof of each request covers the body.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

import msgspec
from litestar import Response, Router, get, post, put
from litestar.handlers import BaseRouteHandler
from litestar.params import FromPath, RawBody
from sqlalchemy import Connection

from cloner_core.admin.images import WantedPacks
from cloner_core.admin.tasks import TaskState
from cloner_core.atrest import DiskKeys, LayoutFound, LayoutTold
from cloner_core.decoding import UNREADABLE
from cloner_core.errors import IntegrityError, InvalidError, NotFoundError
from cloner_core.image.digest import parse_digest, version_digest
from cloner_core.image.version import Draft, VersionRecord, check_image_name
from cloner_core.messages import Granted
from cloner_server.api.callers import AnyConnection, CoreDependency
from cloner_server.api.credentials import author_of, bearer_of, decode_body, shown_credential
from cloner_server.api.faults import AnyRequest
from cloner_server.core import Core
from cloner_server.publishing import require_options, shown_or_taken_back
from cloner_server.state import tasks as rows
from cloner_server.tasks import attempts, capturing
from cloner_server.tasks.attempts import Bearer

_PACK_BYTES, _DRAFT_BYTES = 64 << 20, 1 << 30
_MESSAGEPACK = "application/vnd.msgpack"
_OK = 200


@post("/layout", sync_to_thread=True, status_code=_OK)
def layout(core: CoreDependency, request: AnyRequest, body: RawBody) -> LayoutTold:
    """Say which layout the version is for; keep the one that was found, where that is asked for."""
    with core.database.write() as connection:
        bearer = _shown(connection, request, body)
        found = decode_body(body, LayoutFound)
        kept, notes = capturing.settle_layout(connection, core.act(author_of(bearer)), bearer, found)
    return LayoutTold(kept, core.catalog.store.space()[1], notes)


@post("/disk-keys", sync_to_thread=True, status_code=_OK)
def disk_keys(core: CoreDependency, request: AnyRequest, body: RawBody) -> DiskKeys:
    """Give what may open the encrypted disks of the node, to its accepted hardware."""
    with core.database.write() as connection:
        bearer = _shown(connection, request, body)
        return attempts.release_disk_keys(connection, core.act(author_of(bearer)), bearer, core.site.vault_key)


@get("/base/{image:str}", sync_to_thread=True)
def base(core: CoreDependency, request: AnyRequest, image: FromPath[str]) -> Response[bytes]:
    """Send the packs of the newest version of the task's image, in MessagePack: what need not be sent."""
    bearer = _bearer(core, request, b"")
    if image != capturing.order_of(bearer).image:
        raise NotFoundError("the task captures another image")
    return Response(msgspec.msgpack.encode(core.catalog.store.base(check_image_name(image))), media_type=_MESSAGEPACK)


@post("/missing", status_code=_OK)
async def missing(core: CoreDependency, request: AnyRequest, body: RawBody) -> list[str]:
    """Tell which of these packs the store does not have; those it has are kept for the grace of a gc."""
    return await core.work.put(_missing, core, request, body)


def _missing(core: Core, request: AnyRequest, body: bytes) -> list[str]:
    _bearer(core, request, body)
    wanted = {parse_digest(name): size for name, size in decode_body(body, WantedPacks).packs.items()}
    return [name.hex() for name in core.catalog.store.keep_packs(wanted)]


@put("/packs/{digest:str}", request_max_body_size=_PACK_BYTES, status_code=_OK)
async def pack_put(core: CoreDependency, request: AnyRequest, digest: FromPath[str], body: RawBody) -> Granted:
    """Keep a pack; it must have this digest."""
    await core.work.put(_bearer, core, request, body)
    await core.work.put(core.catalog.store.put_pack, parse_digest(digest), body)
    return Granted()


@put("/segments/{digest:str}/{raw_size:int}", request_max_body_size=_PACK_BYTES, status_code=_OK)
async def segment_put(
    core: CoreDependency,
    request: AnyRequest,
    digest: FromPath[str],
    raw_size: FromPath[int],
    body: RawBody,
) -> Granted:
    """Keep a compressed segment of a tree; unpacked it must have this size and digest."""
    await core.work.put(_bearer, core, request, body)
    await core.work.put(core.catalog.store.put_segment, parse_digest(digest), raw_size, body)
    return Granted()


@post("/publish", request_max_body_size=_DRAFT_BYTES, status_code=_OK)
async def publish(core: CoreDependency, request: AnyRequest, body: RawBody) -> VersionRecord:
    """Make a draft (MessagePack) the next version of the image, and end the task with it; a second time it is told."""
    return await core.work.publish(_publish, core, request, body)


def _publish(core: Core, request: AnyRequest, body: bytes) -> VersionRecord:
    with core.database.read() as connection:
        image = _shown(connection, request, body).task.image
    # An agent whose connection broke asks again while its first request still publishes, for minutes.
    with core.publishing.setdefault(image, threading.Lock()):
        return _publish_once(core, request, body)


def _publish_once(core: Core, request: AnyRequest, body: bytes) -> VersionRecord:
    with core.database.read() as connection:
        bearer = _shown(connection, request, body)
        if TaskState(bearer.task.state) is TaskState.DONE:  # the answer was lost on its way
            return core.catalog.store.version(bearer.task.image, bearer.task.number)
        attempts.require_capture(bearer)
        try:
            draft = capturing.sealed_draft(msgspec.msgpack.decode(body, type=Draft), bearer)
        except UNREADABLE as fault:
            raise InvalidError(f"the body is not a draft: {fault}") from fault
    before = _published_before(core, draft)
    if before is None:
        with core.database.read() as connection:
            require_options(connection, core.catalog.store, draft)
    record = before or core.catalog.store.publish(draft)
    made = shown_or_taken_back(core.catalog.store, record) if before is None else contextlib.nullcontext()
    with made, core.database.write() as connection:
        bearer = _shown(connection, request, body)
        capturing.finish(connection, core.act(author_of(bearer)), bearer, record)
    return record


def _published_before(core: Core, draft: Draft) -> VersionRecord | None:
    """Return the version of this very draft that a server made which was killed before it could say so."""
    try:
        record = core.catalog.store.version(draft.image)
    except (NotFoundError, IntegrityError):  # none, or one that cannot be read
        return None
    is_next = draft.after is not None and record.number == draft.after + 1
    is_same = (record.version, record.author, record.source, record.message) == (
        version_digest(draft.root).hex(),
        draft.author,
        draft.source,
        draft.message,
    )
    return record if is_next and is_same else None


def capture_attempt_router(core_of: Callable[[], Core]) -> Router:
    """Return the routes of captures at rest, beneath the path of an attempt."""

    async def admit(connection: AnyConnection, _handler: BaseRouteHandler) -> None:
        await asyncio.to_thread(_admit, core_of(), connection.headers.get("authorization", ""))

    handlers: list[Any] = [layout, disk_keys, base, missing, pack_put, segment_put, publish]
    path = "/agent/v1/attempts/{attempt_id:str}"
    return Router(path, route_handlers=handlers, guards=[admit], request_max_body_size=4 << 20, tags=["agent"])


def _admit(core: Core, shown: str) -> None:
    """Turn away whoever is no attempt of a capture, before anything that he sends is taken into memory."""
    with core.database.read() as connection:
        bearer = attempts.authenticate(connection, shown_credential(shown))
    if bearer.task.kind != rows.CAPTURE:
        attempts.require_capture(bearer)


def _bearer(core: Core, request: AnyRequest, body: bytes) -> Bearer:
    with core.database.read() as connection:
        bearer = _shown(connection, request, body)
    attempts.require_capture(bearer)
    return bearer


def _shown(connection: Connection, request: AnyRequest, body: bytes) -> Bearer:
    return bearer_of(connection, request, body, request.path_params["attempt_id"])
