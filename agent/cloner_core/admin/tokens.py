"""Tokens: what lets a command on another machine talk to the server, for one purpose and a time."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from cloner_core.messages import Strict

MOST_LIFETIME_S = 366 * 86400
"""No token lives longer; a golden node that is captured for years gets a new one each year."""


class TokenRequest(Strict, frozen=True):
    """Make a token: one that captures versions of one image, or one of a relay."""

    image: str = ""
    layouts: tuple[str, ...] = ()  # that it may change; a layout of a new name it may add without
    installers: tuple[str, ...] = ()  # likewise; never `site` without being named
    lifetime_s: Annotated[float, Meta(gt=0, le=MOST_LIFETIME_S)] = 86400.0
    note: Annotated[str, Meta(max_length=200)] = ""
    relay: str = ""  # in place of an image: the name of the relay that shows it


class TokenView(Strict, frozen=True):
    """A token as it is kept: the server knows its SHA-256 only."""

    id: str
    image: str
    layouts: tuple[str, ...]
    note: str
    author: str
    created_s: float
    expires_s: float
    used_s: float | None  # when it last opened anything; None never
    installers: tuple[str, ...] = ()
    relay: str = ""  # whose it is; "": it captures `image`
    token: str = ""  # told once, to whom made it
