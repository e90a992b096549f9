"""Channels over the API of admins."""

from __future__ import annotations

import contextlib
from typing import Any

from litestar import delete, get, patch
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import UNSET

from cloner_core.admin.channels import ChannelChange, ChannelView
from cloner_core.errors import NotFoundError
from cloner_server.api.callers import CoreDependency, who
from cloner_server.api.faults import AnyRequest
from cloner_server.state import channels, images, keeprules

_OK = 200


@get("/channels", sync_to_thread=True)
def channel_list(core: CoreDependency, image: FromQuery[str] = "") -> list[ChannelView]:
    """List every channel, or those of one image, with the nodes that follow each."""
    with core.database.read() as connection:
        if image:
            images.get_version(connection, image)
        return channels.list_channels(connection, image)


@patch("/images/{name:str}/channels/{channel:str}", sync_to_thread=True)
def channel_set(
    core: CoreDependency,
    *,
    request: AnyRequest,
    name: FromPath[str],
    channel: FromPath[str],
    data: JSONBody[ChannelChange],
    dry_run: FromQuery[bool] = False,
) -> ChannelView:
    """Point a channel of an image to a version, or make it."""
    with core.database.trial(dry_run) as connection:
        row = images.get_version(connection, name, data.version)
        return channels.set_channel(
            connection, who(core, request), row.image, channel, row.number, revision=data.revision
        )


@delete("/images/{name:str}/channels/{channel:str}", sync_to_thread=True, status_code=_OK)
def channel_remove(
    core: CoreDependency,
    *,
    request: AnyRequest,
    name: FromPath[str],
    channel: FromPath[str],
    revision: FromQuery[int | None] = None,
    dry_run: FromQuery[bool] = False,
) -> ChannelView:
    """Remove a channel that no node follows, and its keep rule; the versions stay."""
    act = who(core, request)
    with core.database.trial(dry_run) as connection:
        known = UNSET if revision is None else revision
        view = channels.remove_channel(connection, act, name, channel, revision=known)
        with contextlib.suppress(NotFoundError):  # most have none
            keeprules.remove_rule(connection, act, name, channel)
        return view


def channel_handlers() -> list[Any]:
    """Return the handlers of channels."""
    return [channel_list, channel_set, channel_remove]
