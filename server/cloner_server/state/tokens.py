"""Tokens: kept by their SHA-256, good for one image or one relay, and for a time."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from cloner_core.admin.names import check_name
from cloner_core.admin.tokens import TokenRequest, TokenView
from cloner_core.errors import InvalidError, NotFoundError, RefusedError
from cloner_core.image.version import check_image_name
from cloner_server.state import events
from cloner_server.state.database import Act
from cloner_server.state.tables import tokens

_NOTED_S = 60.0  # `used_s` need not be more exact: a capture makes thousands of requests
_LISTS = ("layouts", "installers")  # JSON in the table


class TokenError(RefusedError):
    """The token is not one of ours, or no longer good: 401."""


@dataclass(frozen=True, slots=True)
class Token:
    """What a token that was shown may do."""

    id: str
    image: str
    layouts: tuple[str, ...]
    installers: tuple[str, ...] = ()
    relay: str = ""  # "": it captures
    is_to_be_noted: bool = False  # that it is used


def make(connection: Connection, act: Act, request: TokenRequest) -> TokenView:
    """Make a token; the view that is returned is the only place that ever holds it. Raises InvalidError."""
    _check_purpose(request)
    for name in request.layouts:
        check_name(name, "layout")
    for name in request.installers:
        check_name(name, "installer")
    shown = secrets.token_urlsafe(32)
    view = TokenView(
        id=secrets.token_hex(4),
        image=request.image,
        layouts=request.layouts,
        installers=request.installers,
        relay=request.relay,
        note=request.note,
        author=act.author,
        created_s=act.now_s,
        expires_s=act.now_s + request.lifetime_s,
        used_s=None,
        token=shown,
    )
    values = msgspec.structs.asdict(view)
    values |= {name: msgspec.json.encode(values[name]).decode() for name in _LISTS}
    del values["token"]
    connection.execute(insert(tokens).values(values | {"digest": _digest(shown)}))
    told: dict[str, Any] = {"image": view.image, "layouts": view.layouts} if view.image else {"relay": view.relay}
    events.record(connection, act, f"token/{view.id}", "made", **told, expires_s=view.expires_s)
    return view


def list_tokens(connection: Connection) -> list[TokenView]:
    """Return every token, the newest first, those that have expired among them."""
    rows = connection.execute(select(tokens).order_by(tokens.c.created_s.desc(), tokens.c.id)).mappings()
    kept = [{str(name): value for name, value in row.items() if name != "digest"} for row in rows]
    lists = [{name: msgspec.json.decode(row[name]) for name in _LISTS} for row in kept]
    return [msgspec.convert(row | more, TokenView) for row, more in zip(kept, lists, strict=True)]


def get(connection: Connection, token_id: str) -> TokenView:
    """Return one token; raises NotFoundError."""
    for view in list_tokens(connection):
        if view.id == token_id:
            return view
    raise NotFoundError(f"no such token: '{token_id}'", hint="cloner token list shows all")


def remove(connection: Connection, act: Act, token_id: str) -> TokenView:
    """Withdraw a token: what is shown from now on opens nothing. Raises NotFoundError."""
    view = get(connection, token_id)
    connection.execute(delete(tokens).where(tokens.c.id == token_id))
    told: dict[str, Any] = {"image": view.image} if view.image else {"relay": view.relay}
    events.record(connection, act, f"token/{token_id}", "withdrawn", **told)
    return view


def find(connection: Connection, now_s: float, shown: str) -> Token:
    """Return what the token `shown` may do; raises TokenError."""
    row = connection.execute(select(tokens).where(tokens.c.digest == _digest(shown))).one_or_none()
    if row is None or row.expires_s <= now_s:
        why = "unknown or was withdrawn" if row is None else "no longer good"
        raise TokenError(
            f"the token is {why}" if shown else "the request carries no token",
            hint="on the server: cloner token create --capture IMAGE, or --relay NAME",
        )
    layouts, installers = (msgspec.json.decode(getattr(row, name), type=tuple[str, ...]) for name in _LISTS)
    is_to_be_noted = row.used_s is None or abs(now_s - row.used_s) >= _NOTED_S
    return Token(row.id, row.image, layouts, installers, row.relay, is_to_be_noted)


def note_use(connection: Connection, now_s: float, token: Token) -> None:
    """Note that a token was used just now."""
    connection.execute(update(tokens).where(tokens.c.id == token.id).values(used_s=now_s))


def _check_purpose(request: TokenRequest) -> None:
    if not request.relay:
        check_image_name(request.image)
        return
    check_name(request.relay, "relay")
    if request.image or request.layouts or request.installers:
        raise InvalidError(f"a token of the relay '{request.relay}' captures nothing", hint="make two tokens")


def _digest(shown: str) -> str:
    return hashlib.sha256(shown.encode("utf-8", "surrogateescape")).hexdigest()
