"""Removing a version of an image: refused while anything uses it; the row stays, marked, for its number is spent.

The store follows: what is marked here and still there after a kill is taken away at the next start.
"""

from __future__ import annotations

from sqlalchemy import Connection, select, text, update

from cloner_core.admin.images import Removal
from cloner_core.errors import RefusedError
from cloner_server.state import channels, events, imageoptions, images, sessions
from cloner_server.state.database import Act
from cloner_server.state.tables import LIVE_TASK, nodes, tasks, versions

_SHOWN = 20


def remove_version(connection: Connection, act: Act, image: str, number: int) -> Removal:
    """Take a version away from every reader; raises NotFoundError, RefusedError naming all that uses it."""
    row = images.get_version(connection, image, number)
    others = [one.number for one in images.list_versions(connection, image) if one.number != number]
    following = _newest_followers(connection, image)
    users = users_by_version(connection, image).get(number, [])
    users += [f"node {name}, whose image has no other version" for name in following if not others]
    if users:
        listed = "\n  - ".join(users[:_SHOWN]) + (f"\n  - and {len(users) - _SHOWN} more" if users[_SHOWN:] else "")
        raise RefusedError(
            f"{image}:{number} is in use:\n  - {listed}",
            hint="cloner channel set, cloner node set --image and cloner task abort give them something else",
        )
    is_same = versions.c.image == image, versions.c.number == number
    connection.execute(update(versions).where(*is_same).values(removed_s=act.now_s))
    events.record(connection, act, f"image/{image}:{number}", "removed", revision=number, digest=row.digest)
    if not others:
        imageoptions.forget(connection, act, image)
    newest = max(others, default=0)
    return Removal(
        image=image,
        number=number,
        digest=str(row.digest),
        published_s=row.published_s,
        author=row.author,
        newest=newest if newest < number else None,
        nodes=tuple(following) if newest < number else (),
    )


def users_by_version(connection: Connection, image: str) -> dict[int, list[str]]:
    """Return what uses each version of an image, each user as a person calls it."""
    users: dict[int, list[str]] = {}
    for (_, number), names in channels.pointing(connection, image).items():
        users[number] = [f"channel {image}:{name}" for name in names]
    pinned = select(nodes.c.name, nodes.c.version).where(nodes.c.image == image, nodes.c.version.is_not(None))
    for row in connection.execute(pinned.order_by(nodes.c.name)):
        users.setdefault(row.version, []).append(f"node {row.name}")
    live = select(tasks).where(tasks.c.image == image, text(LIVE_TASK)).order_by(tasks.c.id)
    for row in connection.execute(live):
        users.setdefault(row.number, []).append(f"task {row.id} on {row.node}, which is {row.state}")
    for session in sessions.live(connection):
        if session.image == image:
            users.setdefault(session.number, []).append(f"multicast session {session.id}, which is {session.state}")
    return users


def _newest_followers(connection: Connection, image: str) -> list[str]:
    """Return the nodes that get the newest version of an image, whatever it is."""
    of_image = nodes.c.image == image, nodes.c.version.is_(None), nodes.c.channel == ""
    return list(connection.execute(select(nodes.c.name).where(*of_image).order_by(nodes.c.name)).scalars())
