"""Channels as they are kept: every move is a row, and the last of a channel says where it points.

A removal is a move to nowhere: revisions go on after it, so that an old one never matches again.
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType
from sqlalchemy import Connection, Row, func, insert, select

from cloner_core.admin.channels import ChannelView
from cloner_core.errors import ConflictError, InvalidError, NotFoundError, RefusedError
from cloner_core.image.reference import channel_faults
from cloner_server.state import events
from cloner_server.state.database import Act
from cloner_server.state.tables import channel_moves, nodes

_LISTING = "cloner channel list shows all"
_SHOWN = 20


def number_of(connection: Connection, image: str, name: str) -> int:
    """Return the number of the version that a channel points to; raises NotFoundError."""
    last = _last_move(connection, image, name)
    if last is None or last.number is None:
        raise NotFoundError(f"image '{image}' has no channel '{name}'", hint=_LISTING)
    return int(last.number)


def list_channels(connection: Connection, image: str = "") -> list[ChannelView]:
    """Return every channel, those of `image` alone when it is given, by image and name."""
    return [_view(connection, row) for row in _present(connection, image)]


def pointing(connection: Connection, image: str = "") -> dict[tuple[str, int], list[str]]:
    """Return the channels that point to each version, by image and number; of `image` alone when it is given."""
    names: dict[tuple[str, int], list[str]] = {}
    for row in _present(connection, image):
        names.setdefault((row.image, row.number), []).append(row.channel)
    return names


def _present(connection: Connection, image: str) -> list[Row[tuple[Any, ...]]]:
    newest = select(func.max(channel_moves.c.revision)).where(
        channel_moves.c.image == (of := channel_moves.alias()).c.image, channel_moves.c.channel == of.c.channel
    )
    query = select(of).where(of.c.revision == newest.scalar_subquery(), of.c.number.is_not(None))
    if image:
        query = query.where(of.c.image == image)
    return list(connection.execute(query.order_by(of.c.image, of.c.channel)))


def moves_of(connection: Connection, image: str) -> list[Row[tuple[Any, ...]]]:
    """Return every move of the channels of `image` to a version, oldest first."""
    query = select(channel_moves).where(channel_moves.c.image == image, channel_moves.c.number.is_not(None))
    return list(connection.execute(query.order_by(channel_moves.c.channel, channel_moves.c.revision)))


def set_channel(
    connection: Connection, act: Act, image: str, name: str, number: int, *, revision: int | UnsetType = UNSET
) -> ChannelView:
    """Point a channel, made when there is none, to a version that exists; where it points already nothing changes.

    Raises InvalidError for what cannot be its name, ConflictError when `revision` is not the one it has (0: none).
    """
    if faults := channel_faults(name):
        raise InvalidError("the channel cannot be set", faults=faults)
    last = _last_move(connection, image, name)
    before = None if last is None else last.number
    _require_revision(image, name, revision, 0 if before is None or last is None else last.revision)
    if last is not None and before == number:
        return _view(connection, last)
    return _move(connection, act, image, name, last=last, number=number)


def remove_channel(
    connection: Connection, act: Act, image: str, name: str, *, revision: int | UnsetType = UNSET
) -> ChannelView:
    """Remove a channel; raises NotFoundError, ConflictError as above, RefusedError while nodes follow it."""
    last = _last_move(connection, image, name)
    if last is None or last.number is None:
        raise NotFoundError(f"image '{image}' has no channel '{name}'", hint=_LISTING)
    _require_revision(image, name, revision, last.revision)
    view = _view(connection, last)
    if view.nodes:
        shown = ", ".join(view.nodes[:_SHOWN]) + (" …" if len(view.nodes) > _SHOWN else "")
        raise RefusedError(
            f"{len(view.nodes)} nodes follow {image}:{name}: {shown}",
            hint=f"give them a version first: cloner node set {view.nodes[0]} --image {image}:{view.version}",
        )
    _move(connection, act, image, name, last=last, number=None)
    return view


def _require_revision(image: str, name: str, wanted: int | UnsetType, present: int) -> None:
    if wanted is not UNSET and wanted != present:
        has = f"has revision {present}" if present else "does not exist"
        raise ConflictError(f"the channel {image}:{name} {has}, wanted revision {wanted}", hint="read it again")


def _last_move(connection: Connection, image: str, name: str) -> Row[tuple[Any, ...]] | None:
    query = select(channel_moves).where(channel_moves.c.image == image, channel_moves.c.channel == name)
    return connection.execute(query.order_by(channel_moves.c.revision.desc()).limit(1)).one_or_none()


def _move(
    connection: Connection, act: Act, image: str, name: str, *, last: Row[tuple[Any, ...]] | None, number: int | None
) -> ChannelView:
    revision, before = (1, None) if last is None else (last.revision + 1, last.number)
    values = {"image": image, "channel": name, "revision": revision, "number": number}
    values |= {"moved_s": act.now_s, "author": act.author}
    row = connection.execute(insert(channel_moves).values(values).returning(channel_moves)).one()
    what = "removed" if number is None else "set"
    events.record(connection, act, f"channel/{image}:{name}", what, revision=revision, version=number, before=before)
    return _view(connection, row)


def _view(connection: Connection, row: Row[tuple[Any, ...]]) -> ChannelView:
    following = select(nodes.c.name).where(nodes.c.image == row.image, nodes.c.channel == row.channel)
    return ChannelView(
        image=row.image,
        channel=row.channel,
        version=row.number or 0,
        revision=row.revision,
        changed_s=row.moved_s,
        author=row.author,
        nodes=tuple(connection.execute(following.order_by(nodes.c.name)).scalars()),
    )
