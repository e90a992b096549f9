"""Tokens over the API of admins."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody

from cloner_core.admin.tokens import TokenRequest, TokenView
from cloner_server.api.callers import CoreDependency, require_token, who
from cloner_server.api.faults import AnyRequest
from cloner_server.state import tokens

_OK = 200


@get("/tokens", sync_to_thread=True)
def token_list(core: CoreDependency) -> list[TokenView]:
    """List every token, the newest first; none of them says what is shown for it."""
    with core.database.read() as connection:
        return tokens.list_tokens(connection)


@get("/token", sync_to_thread=True)
def token_mine(core: CoreDependency, request: AnyRequest) -> TokenView:
    """Show the token by which this request came."""
    token_id = require_token(request)
    with core.database.read() as connection:
        return tokens.get(connection, token_id)


@post("/tokens", sync_to_thread=True, status_code=_OK)
def token_make(
    core: CoreDependency, request: AnyRequest, data: JSONBody[TokenRequest], dry_run: FromQuery[bool] = False
) -> TokenView:
    """Make a token; the answer alone ever holds it. Of a dry run it has none."""
    with core.database.trial(dry_run) as connection:
        view = tokens.make(connection, who(core, request), data)
    return msgspec.structs.replace(view, token="") if dry_run else view


@delete("/tokens/{token_id:str}", sync_to_thread=True, status_code=_OK)
def token_remove(
    core: CoreDependency, request: AnyRequest, token_id: FromPath[str], dry_run: FromQuery[bool] = False
) -> TokenView:
    """Withdraw a token."""
    with core.database.trial(dry_run) as connection:
        return tokens.remove(connection, who(core, request), token_id)


def token_handlers() -> list[Any]:
    """Return the handlers of tokens."""
    return [token_list, token_make, token_remove]
