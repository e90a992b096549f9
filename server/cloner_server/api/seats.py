"""What agents ask about multicast: to wait for a session, and a seat in one. Words are those of `cloner_core.seats`."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any

import msgspec
from litestar import post
from litestar.params import RawBody

from cloner_core.errors import ClonerError, InvalidError
from cloner_core.facts import fingerprint
from cloner_core.messages import PROTOCOL
from cloner_core.seats import HELD_S, CheckIn, WaitHello, WaitReply
from cloner_server.api.callers import CoreDependency
from cloner_server.api.credentials import decode_body
from cloner_server.api.faults import AnyRequest
from cloner_server.callboard import either
from cloner_server.core import Core
from cloner_server.tasks import waiting

_OK = 200


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
    return [wait, check_in]


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
