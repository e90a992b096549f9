"""Keep rules as they are kept, changed by compare-and-swap, and what they say of the versions that there are."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType
from sqlalchemy import Connection, Row, insert, select, update

from cloner_core.admin.keeping import KeepView, VersionFate
from cloner_core.errors import ConflictError, InvalidError, NotFoundError
from cloner_core.image.keeping import OF_IMAGE, Candidate, History, KeepRule, fates
from cloner_server.state import channels, events, images, removal
from cloner_server.state.database import Act
from cloner_server.state.tables import KEEP_COUNTS, keep_rules


def list_rules(connection: Connection, image: str = "") -> list[KeepView]:
    """Return every rule, those of `image` alone when it is given, by image and channel."""
    query = select(keep_rules).order_by(keep_rules.c.image, keep_rules.c.channel)
    if image:
        query = query.where(keep_rules.c.image == image)
    views = [_view(row) for row in connection.execute(query)]
    return [view for view in views if not view.rule.is_empty]


def set_rule(
    connection: Connection,
    act: Act,
    image: str,
    channel: str,
    rule: KeepRule,
    *,
    revision: int | UnsetType = UNSET,
) -> KeepView:
    """Give an image, or a channel of it, this rule in place of the one it has; a rule that is so changes nothing.

    Raises InvalidError for one that keeps nothing, NotFoundError, ConflictError when `revision` is not the present one.
    """
    if rule.is_empty:
        raise InvalidError("a rule must keep something", hint="--last 5, or: cloner image keep --remove")
    images.get_version(connection, image)
    if channel != OF_IMAGE:
        channels.number_of(connection, image, channel)
    return _change(connection, act, image, channel, rule=rule, revision=revision)


def remove_rule(
    connection: Connection, act: Act, image: str, channel: str, *, revision: int | UnsetType = UNSET
) -> KeepView:
    """Remove a rule and return it as it was; raises NotFoundError, ConflictError as above."""
    before = _find(connection, image, channel)
    if before is None or before.rule.is_empty:
        named = f"{image}:{channel}" if channel else image
        raise NotFoundError(f"{named} has no keep rule", hint="cloner image keep shows all")
    _change(connection, act, image, channel, rule=KeepRule(), revision=revision)
    return before


def find_fates(connection: Connection) -> list[VersionFate]:
    """Return what the rules say of every version of the images that have one."""
    rules: dict[str, dict[str, KeepRule]] = {}
    for view in list_rules(connection):
        rules.setdefault(view.image, {})[view.channel] = view.rule
    return [
        VersionFate(image, fate.number, fate.why)
        for image, of_image in rules.items()
        for fate in fates(_history(connection, image), of_image)
    ]


def _history(connection: Connection, image: str) -> History:
    moves: dict[str, dict[int, Candidate]] = {}
    for move in channels.moves_of(connection, image):  # the last move to a version counts
        moves.setdefault(move.channel, {})[move.number] = Candidate(move.number, move.revision, move.moved_s)
    return History(
        image=image,
        versions=[
            Candidate(row.number, row.number, row.published_s) for row in images.list_versions(connection, image)
        ],
        channels={channel: list(of_channel.values()) for channel, of_channel in moves.items()},
        users=removal.users_by_version(connection, image),
    )


def _find(connection: Connection, image: str, channel: str) -> KeepView | None:
    query = select(keep_rules).where(keep_rules.c.image == image, keep_rules.c.channel == channel)
    row = connection.execute(query).one_or_none()
    return None if row is None else _view(row)


def _change(
    connection: Connection, act: Act, image: str, channel: str, *, rule: KeepRule, revision: int | UnsetType
) -> KeepView:
    before = _find(connection, image, channel)
    named = f"{image}:{channel}" if channel else image
    present = 0 if before is None or before.rule.is_empty else before.revision
    if revision is not UNSET and revision != present:
        raise ConflictError(f"the keep rule of {named} has revision {present}, wanted {revision}", hint="read it again")
    if before is not None and before.rule == rule:
        return before
    values: dict[str, Any] = {name: getattr(rule, name) for name in KEEP_COUNTS}
    values |= {"revision": 1 if before is None else before.revision + 1, "changed_s": act.now_s, "author": act.author}
    if before is None:
        connection.execute(insert(keep_rules).values(values | {"image": image, "channel": channel}))
    else:
        is_same = keep_rules.c.image == image, keep_rules.c.channel == channel
        connection.execute(update(keep_rules).where(*is_same).values(values))
    what = "keep rule removed" if rule.is_empty else "keep rule set"
    earlier = "" if before is None else str(before.rule)
    obj = f"channel/{named}" if channel else f"image/{named}"
    events.record(connection, act, obj, what, revision=values["revision"], rule=str(rule), before=earlier)
    return KeepView(image, channel, values["revision"], rule, act.now_s, act.author)


def _view(row: Row[tuple[Any, ...]]) -> KeepView:
    rule = KeepRule(**{name: getattr(row, name) for name in KEEP_COUNTS})
    return KeepView(row.image, row.channel, row.revision, rule, row.changed_s, row.author)
