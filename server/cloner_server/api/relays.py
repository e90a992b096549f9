"""What relays ask of their head, on the port of nodes, and what admins see of them.

A relay gets parts of the versions of its own live sessions, and nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from litestar import Response, Router, get, post
from litestar.params import FromPath, RawBody
from litestar.types import ASGIApp

from cloner_core.admin.relays import HeadView, RelayView
from cloner_core.errors import RefusedError, UnreachableError
from cloner_core.image.digest import parse_digest
from cloner_core.seats import parcel_head
from cloner_server.api.callers import CoreDependency, admit_relay
from cloner_server.api.credentials import decode_body
from cloner_server.api.faults import AnyRequest
from cloner_server.api.parts import send_bytes, send_parcel
from cloner_server.api.seats import address_of
from cloner_server.callboard import either
from cloner_server.core import Core
from cloner_server.relay.words import HELD_S, TURN_BYTES, RelayOrders, RelayTurn
from cloner_server.relayhub import RelayHub
from cloner_server.state import tokens

_OK = 200
_LISTED_S = 15.0  # a relay asks again after a 503


@post("/turn", status_code=_OK, request_max_body_size=TURN_BYTES)
async def turn(core: CoreDependency, request: AnyRequest, name: FromPath[str], body: RawBody) -> RelayOrders:
    """Take everything that a relay has to say, and answer with everything that it is to do."""
    hub, told = _hub(core), decode_body(body, RelayTurn)
    orders = await asyncio.to_thread(hub.take, name, told, address_of(request))
    if not told.is_held or orders.state != told.seen:
        return orders
    with hub.calls.listening(name) as called:
        orders = await asyncio.to_thread(hub.orders, name, told.boot)  # it may have been called since the first look
        if orders.state == told.seen:
            await either(called, core.stopping, HELD_S)
            orders = await asyncio.to_thread(hub.orders, name, told.boot)
    return orders


@get("/maps/{digest:str}", sync_to_thread=True)
def pack_map(core: CoreDependency, name: FromPath[str], digest: FromPath[str]) -> ASGIApp:
    """Send a pack map."""
    return send_bytes(core.catalog.store.pack_map(_granted(core, name, digest)))


@get("/maps/{digest:str}/parcels")
async def parcels(core: CoreDependency, name: FromPath[str], digest: FromPath[str]) -> Response[bytes]:
    """Send the list of the parcels of a map; 503 while the packs are still being read for it."""
    wanted = await asyncio.to_thread(_granted, core, name, digest)
    if core.sessions is None:
        raise RefusedError("this server sends no multicast", hint="cloner serve --interface")
    made = asyncio.wrap_future(core.sessions.shelf.listed(wanted))
    done, _ = await asyncio.wait((made,), timeout=_LISTED_S)
    if not done:
        raise UnreachableError(core.sessions.shelf.progress(wanted))
    return Response((await made).encoded, media_type="application/json")


@get("/maps/{digest:str}/parcels/{ordinal:int}", sync_to_thread=True)
def parcel(core: CoreDependency, name: FromPath[str], digest: FromPath[str], ordinal: FromPath[int]) -> ASGIApp:
    """Send a parcel, when it is its turn: the placement record and the pack."""
    wanted, store = _granted(core, name, digest), core.catalog.store

    def find() -> tuple[bytes, Path]:
        pack = _hub(core).pack_of(wanted, ordinal)
        return parcel_head(store.placement(wanted, ordinal)), store.pack_path(pack.digest)

    return send_parcel(core.admission, find)


@get("/maps/{digest:str}/placements/{ordinal:int}", sync_to_thread=True)
def placement(core: CoreDependency, name: FromPath[str], digest: FromPath[str], ordinal: FromPath[int]) -> ASGIApp:
    """Send the placement record of a pack, for a relay that has the pack."""
    return send_bytes(core.catalog.store.placement(_granted(core, name, digest), ordinal))


@get("/v1/ca.pem", sync_to_thread=False)
def ca(core: CoreDependency) -> Response[bytes]:
    """Send the CA; who asks compares its SHA-256 with what an admin told."""
    return Response(core.site.ca_pem, media_type="application/x-pem-file")


def relay_routers(core_of: Callable[[], Core]) -> list[Router]:
    """Return the routes of relays on the port of nodes."""
    own: list[Any] = [turn, pack_map, parcels, parcel, placement]
    return [
        Router("/v1/relays/{name:str}", route_handlers=own, guards=[admit_relay(core_of)], tags=["relay"]),
        Router("/", route_handlers=[ca], tags=["relay"]),
    ]


@get("/relays", sync_to_thread=True)
def relay_list(core: CoreDependency) -> list[RelayView]:
    """List the relays that were heard of, or have a token."""
    with core.database.read() as connection:
        known: dict[str, float] = {}
        for token in tokens.list_tokens(connection):
            if token.relay and token.expires_s > core.clock():
                known[token.relay] = max(token.expires_s, known.get(token.relay, 0.0))
        return _hub(core).views(connection, known)


@get("/relays/head", sync_to_thread=False)
def relay_head(core: CoreDependency) -> HeadView:
    """Show what a relay must be told of this server."""
    return HeadView(core.address, core.tls_port, hashlib.sha256(core.site.ca_pem).hexdigest())


def relay_handlers() -> list[Any]:
    """Return the handlers of admins."""
    return [relay_list, relay_head]


def _hub(core: Core) -> RelayHub:
    if core.relays is None:
        raise RefusedError("this server sends no multicast", hint="cloner serve --interface NAME")
    return core.relays


def _granted(core: Core, name: str, pack_map: str) -> bytes:
    wanted = parse_digest(pack_map)
    _hub(core).require_granted(name, wanted)
    return wanted
