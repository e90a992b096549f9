"""What agents ask about multicast: to wait for a session, and a seat in one. Words are those of `cloner_core.seats`."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, RawBody

from cloner_core.errors import ClonerError, InvalidError, RefusedError, UnreachableError
from cloner_core.facts import fingerprint
from cloner_core.messages import PROTOCOL, Granted
from cloner_core.seats import HELD_S, CheckIn, NoSeat, SeatLeft, SeatReply, SeatRequest, WaitHello, WaitReply
from cloner_server.api.callers import CoreDependency
from cloner_server.api.credentials import author_of, bearer_of, decode_body
from cloner_server.api.faults import AnyRequest
from cloner_server.api.grants import granted_version
from cloner_server.callboard import either
from cloner_server.core import Core
from cloner_server.tasks import waiting

_OK = 200
_LISTED_S = 15.0  # an agent asks again after a 503


class _Versioned(msgspec.Struct):
    protocol: int


@post("/wait", sync_to_thread=True, status_code=_OK)
def wait(core: CoreDependency, request: AnyRequest, body: RawBody) -> WaitReply:
    """Take the facts of a node that waits for a session, and say what it is to do."""
    require_protocol(body)
    message = decode_body(body, WaitHello)
    require_key(message.public_key)
    with core.database.write() as connection:
        act = core.act(f"agent {fingerprint(message.facts)}")
        reply = waiting.accept_hello(connection, act, message, core.rules, address=address_of(request))
    return _given(reply)


@post("/wait/check-in", status_code=_OK)
async def check_in(core: CoreDependency, request: AnyRequest, body: RawBody) -> WaitReply:
    """Hold a node that waits until it is called, or for a while; no thread is held with it."""
    message, address = decode_body(body, CheckIn), address_of(request)
    reply = await asyncio.to_thread(_checked_in, core, message, address)
    if reply.order != "wait":
        return reply
    with core.calls.listening(reply.node) as called:
        if not await asyncio.to_thread(_is_called, core, reply.node):  # since the first look
            await either(called, core.stopping, HELD_S)
            if not await asyncio.to_thread(_is_called, core, reply.node):
                return reply
    return await asyncio.to_thread(_checked_in, core, message, address)


@post("/attempts/{attempt_id:str}/seat", sync_to_thread=True, status_code=_OK)
def seat(core: CoreDependency, request: AnyRequest, attempt_id: FromPath[str], body: RawBody) -> SeatReply:
    """Give a node that could receive now its seat."""
    with core.database.write() as connection:
        bearer = bearer_of(connection, request, body, attempt_id)
        message = decode_body(body, SeatRequest)  # a stranger's body is not looked into
        if core.sessions is None:
            return NoSeat("this server sends no multicast")
        reply, told = core.sessions.ask(connection, core.act(author_of(bearer)), bearer, message)
    core.sessions.tell(bearer.task.session, told)
    return reply


@post("/attempts/{attempt_id:str}/seat/left", sync_to_thread=True, status_code=_OK)
def seat_left(core: CoreDependency, request: AnyRequest, attempt_id: FromPath[str], body: RawBody) -> Granted:
    """Take the word of a node that it goes on over HTTPS, or has everything."""
    with core.database.write() as connection:
        bearer = bearer_of(connection, request, body, attempt_id)
        message = decode_body(body, SeatLeft)
        if core.sessions is None:
            return Granted()
        told = core.sessions.leave(connection, core.act(author_of(bearer)), bearer, message)
    core.sessions.tell(bearer.task.session, told)
    return Granted()


@get("/versions/{digest:str}/parcels")
async def parcels(core: CoreDependency, request: AnyRequest, digest: FromPath[str]) -> Response[bytes]:
    """Send the list of the parcels of the task's version; 503 while the packs are still being read for it."""
    version = await granted_version(core, request, digest)
    if core.sessions is None:
        raise RefusedError("this server sends no multicast", hint="cloner serve --interface")
    made = asyncio.wrap_future(core.sessions.shelf.listed(version.map_digest))
    done, _ = await asyncio.wait((made,), timeout=_LISTED_S)
    if not done:
        raise UnreachableError(core.sessions.shelf.progress(version.map_digest))
    return Response((await made).encoded, media_type="application/json")


def require_protocol(body: bytes) -> None:
    """Raise InvalidError for an agent that speaks another version of the protocol."""
    spoken = decode_body(body, _Versioned).protocol
    if spoken != PROTOCOL:
        raise InvalidError(
            f"the agent speaks protocol {spoken}, this server {PROTOCOL}",
            hint="rebuild the initramfs with 'cloner initramfs build' of the server's version",
        )


def require_key(public_key: str) -> None:
    """Raise InvalidError for what is no Ed25519 key."""
    if len(public_key) != 64 or not all(c in "0123456789abcdef" for c in public_key):
        raise InvalidError("public_key is not 64 lower-case hex digits")


def address_of(request: AnyRequest) -> str:
    """Return the IP address a request came from, "" where there is none (a Unix socket)."""
    try:
        return str(ipaddress.ip_address(request.client.host if request.client else ""))
    except ValueError:
        return ""


def seat_handlers() -> list[Any]:
    """Return the handlers of waiting nodes and of seats."""
    return [wait, check_in, seat, seat_left, parcels]


def _checked_in(core: Core, message: CheckIn, address: str) -> WaitReply:
    with core.database.write() as connection:
        reply = waiting.accept_check_in(connection, core.act("agent"), message, core.rules, address=address)
    return _given(reply)


def _is_called(core: Core, node: str) -> bool:
    with core.database.read() as connection:
        return waiting.is_called(connection, node)


def _given(reply: WaitReply | ClonerError) -> WaitReply:
    if isinstance(reply, ClonerError):
        raise reply  # after the transaction: its alarm is written
    return reply
