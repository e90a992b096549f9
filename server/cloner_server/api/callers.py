"""Who is asking: root by the socket for root alone, or the holder of a token by the port of nodes.

A door that takes tokens has `admit` look at each request before its body is read. Handlers that both doors share ask
`require_image` and `require_layout`, which bind a token to what it is for and let root do everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler
from litestar.params import SkipValidation
from sqlalchemy import Connection

from cloner_core.admin.installers import SITE
from cloner_core.errors import NotFoundError, RefusedError
from cloner_server.api.faults import AnyRequest
from cloner_server.core import Core
from cloner_server.state import installers, layouts, tokens
from cloner_server.state.database import Act

CoreDependency = NamedDependency[SkipValidation[Core]]
AnyConnection = ASGIConnection[Any, Any, Any, Any]

_TOKEN = "cloner_token"


def who(core: Core, request: AnyRequest) -> Act:
    """Return the author for the audit: whom the caller names, and the token it came by."""
    name = request.headers.get("cloner-author", "root")[:64]
    name = name if name.isprintable() else "root"
    token = _token(request)
    return core.act(name if token is None else f"token {token.id} ({name})")


Guard = Callable[[AnyConnection, BaseRouteHandler], Awaitable[None]]


def admit(core_of: Callable[[], Core]) -> Guard:
    """Return the guard of a door that takes tokens of captures; it raises TokenError, and RefusedError for others."""

    async def look(connection: AnyConnection, _handler: BaseRouteHandler) -> None:
        token = await _shown(core_of(), connection)
        if token.relay:
            raise RefusedError(f"this token is for the relay '{token.relay}', and captures nothing", hint=_HINT)

    return look


def admit_relay(core_of: Callable[[], Core]) -> Guard:
    """Return the guard of the door of the relay that the path names; it raises TokenError or RefusedError."""

    async def look(connection: AnyConnection, _handler: BaseRouteHandler) -> None:
        token, name = await _shown(core_of(), connection), connection.path_params["name"]
        if token.relay != name:
            whose = f"the relay '{token.relay}'" if token.relay else f"captures of the image '{token.image}'"
            hint = "on the server: cloner token create --relay NAME"
            raise RefusedError(f"this token is for {whose}, not for the relay '{name}'", hint=hint)

    return look


def require_token(request: AnyRequest) -> str:
    """Return the id of the token that the request came by; raises RefusedError when it came by none."""
    token = _token(request)
    if token is None:
        raise RefusedError("this is for the holder of a token", hint=_HINT)
    return token.id


def require_image(request: AnyRequest, image: str) -> None:
    """Raise RefusedError when the request came by a token that is for another image."""
    token = _token(request)
    if token is not None and token.image != image:
        raise RefusedError(f"this token is for the image '{token.image}' and no other", hint=_HINT)


def require_layout(connection: Connection, request: AnyRequest, name: str) -> None:
    """Raise RefusedError when the request came by a token that may not change the layout `name`; a new one it may add.

    Other nodes are cloned by the newest number of a layout: a golden node must not change those of others.
    """
    token = _token(request)
    if token is None or name in token.layouts:
        return
    try:
        layouts.get_layout(connection, name)
    except NotFoundError:
        return
    raise RefusedError(f"this token may not change the layout '{name}'", hint=f"{_HINT} --disklayout {name}")


def require_installer(connection: Connection, request: AnyRequest, name: str) -> None:
    """Raise RefusedError when the request came by a token that may not put the installer `name`; a new one it may add.

    Nobody boots a new one until an admin says so; but `site` is everybody's, whether there is one or not.
    """
    token = _token(request)
    if token is None or name in token.installers:
        return
    try:
        installers.get_installer(connection, name)
    except NotFoundError:
        if name != SITE:
            return
    raise RefusedError(f"this token may not change the installer '{name}'", hint=f"{_HINT} --installer {name}")


_HINT = "on the server: cloner token create --capture IMAGE"


async def _shown(core: Core, connection: AnyConnection) -> tokens.Token:
    scheme, _, shown = connection.headers.get("authorization", "").partition(" ")
    token = await asyncio.to_thread(_use, core, shown if scheme == "Bearer" else "")
    connection.scope["state"][_TOKEN] = token
    return token


def _use(core: Core, shown: str) -> tokens.Token:
    now_s = core.clock()
    with core.database.read() as connection:
        token = tokens.find(connection, now_s, shown)
    if token.is_to_be_noted:
        with core.database.write() as connection:
            tokens.note_use(connection, now_s, token)
    return token


def _token(request: AnyRequest) -> tokens.Token | None:
    found = request.scope["state"].get(_TOKEN)
    return found if isinstance(found, tokens.Token) else None
