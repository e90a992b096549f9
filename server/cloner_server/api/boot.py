"""Plain HTTP: boot scripts, loaders, kernel and initramfs, the kit, the call of a clone. No secret but claims."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import msgspec
from sqlalchemy.exc import DBAPIError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from cloner_core.decoding import UNREADABLE
from cloner_core.errors import ClonerError, InvalidError
from cloner_core.messages import Confirm, Fault, Granted
from cloner_core.sightings import BootStep
from cloner_pxe.http import HttpAnswer, answer_http
from cloner_server.api.faults import http_status, trouble_of
from cloner_server.api.kit import kit_routes
from cloner_server.boot import BootDesk
from cloner_server.core import Core
from cloner_server.tasks import endings

log = logging.getLogger(__name__)

_CONFIRM_BYTES = 4096
_CHUNK_BYTES = 1 << 20
_STEPS = {"loader": BootStep.LOADER, "kernel": BootStep.KERNEL, "initramfs": BootStep.INITRAMFS}


def boot_app(core: Core, desk: BootDesk, loaders: dict[str, Path]) -> Starlette:
    """Return the application of the plain HTTP port."""

    async def boot(request: Request) -> Response:
        answer = await answer_http(request.url.path, request.url.query, site=desk, policy=desk.policy)
        if answer.why:
            log.info("%s %s: %s", answer.mac or "-", request.url.path, answer.alarm or answer.why)
        if answer.kind in _STEPS and request.client is not None:
            desk.saw(_STEPS[answer.kind], mac=answer.mac, address=request.client.host)
        return _respond(answer, desk, loaders)

    async def confirm(request: Request) -> Response:
        try:
            message = _confirmation(await _body(request))
            await asyncio.to_thread(_confirm, core, message)
        except ClonerError as fault:
            answer = Fault(error=fault.message, hint=fault.hint, status=int(fault.exit_status))
            return _json(answer, http_status(fault))
        except ClientDisconnect:
            return Response(status_code=400)
        except (DBAPIError, OSError) as fault:
            told = trouble_of(fault)
            if told is None:
                raise
            return _json(Fault(error=told.message, hint=told.hint, status=int(told.exit_status)), http_status(told))
        return _json(Granted(), 200)

    routes = [Route("/boot/{path:path}", boot, methods=["GET"]), Route("/confirm", confirm, methods=["POST"])]
    routes += kit_routes(core)
    return Starlette(routes=routes)


def _respond(answer: HttpAnswer, desk: BootDesk, loaders: dict[str, Path]) -> Response:
    if not answer.kind:
        return Response(answer.body, answer.status, media_type=answer.content_type)
    path = loaders.get(answer.name) if answer.kind == "loader" else desk.file_of(answer.kind, answer.name)
    if path is None or not path.is_file():
        return Response("not found\n", 404, media_type="text/plain")
    response = FileResponse(path, media_type=answer.content_type)
    response.chunk_size = _CHUNK_BYTES
    return response


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for block in request.stream():
        body += block
        if len(body) > _CONFIRM_BYTES:
            raise InvalidError(f"the confirmation is longer than {_CONFIRM_BYTES} bytes")
    return bytes(body)


def _confirmation(body: bytes) -> Confirm:
    try:
        return msgspec.json.decode(body, type=Confirm)
    except UNREADABLE as fault:
        raise InvalidError(f"the body is not a confirmation: {fault}") from fault


def _confirm(core: Core, message: Confirm) -> None:
    with core.database.write() as connection:
        refusal = endings.accept_confirm(connection, core.act("clone"), message)
    if refusal is not None:
        raise refusal  # after the transaction: its alarm is written


def _json(body: Fault | Granted, status: int) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")
