"""Removing a version of an image: refused while anything uses it; the row stays, marked, for its number is spent.

The store follows: what is marked here and still there after a kill is taken away at the next start.
"""

from __future__ import annotations

from sqlalchemy import Connection, select, text, update

from cloner_core.admin.images import Removal
from cloner_core.errors import RefusedError
from cloner_server.state import channels, events, images
from cloner_server.state.database import Act
from cloner_server.state.tables import LIVE_TASK, nodes, tasks, versions

_SHOWN = 20


def remove_version(connection: Connection, act: Act, image: str, number: int) -> Removal:
    """Take a version away from every reader; raises NotFoundError, RefusedError naming all that uses it."""
    row = images.get_version(connection, image, number)
    others = [one.number for one in images.list_versions(connection, image) if one.number != number]
    if users := users_of(connection, image, number, is_last=not others):
        listed = "\n  - ".join(users[:_SHOWN]) + (f"\n  - and {len(users) - _SHOWN} more" if users[_SHOWN:] else "")
        raise RefusedError(
            f"{image}:{number} is in use:\n  - {listed}",
            hint="cloner channel set, cloner node set --image and cloner task abort give them something else",
        )
    is_same = versions.c.image == image, versions.c.number == number
    connection.execute(update(versions).where(*is_same).values(removed_s=act.now_s))
    events.record(connection, act, f"image/{image}:{number}", "removed", revision=number, digest=row.digest)
    newest = max(others, default=0)
    following = _nodes(connection, nodes.c.image == image, nodes.c.version.is_(None), nodes.c.channel == "")
    return Removal(
        image=image,
        number=number,
        digest=str(row.digest),
        published_s=row.published_s,
        author=row.author,
        newest=newest if newest < number else None,
        nodes=tuple(following) if newest < number else (),
    )


def users_of(connection: Connection, image: str, number: int, *, is_last: bool = False) -> list[str]:
    """Return what uses a version, each as a person calls it; `is_last` that it is the only one of its image."""
    pointing = [view for view in channels.list_channels(connection, image) if view.version == number]
    found = [f"channel {image}:{view.channel}" for view in pointing]
    found += [f"node {name}" for name in _nodes(connection, nodes.c.image == image, nodes.c.version == number)]
    if is_last:
        of_image = nodes.c.image == image, nodes.c.version.is_(None), nodes.c.channel == ""
        found += [f"node {name}, whose image has no other version" for name in _nodes(connection, *of_image)]
    of_version = tasks.c.image == image, tasks.c.number == number, text(LIVE_TASK)
    live = connection.execute(select(tasks).where(*of_version).order_by(tasks.c.id))
    return found + [f"task {row.id} on {row.node}, which is {row.state}" for row in live]


def _nodes(connection: Connection, *conditions: object) -> list[str]:
    query = select(nodes.c.name).where(*conditions).order_by(nodes.c.name)  # type: ignore[arg-type]
    return list(connection.execute(query).scalars())
