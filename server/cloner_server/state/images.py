"""Which versions are published: the row here is the last step of a publish, readers look nowhere else."""

from __future__ import annotations

from sqlalchemy import Connection, Row, insert, select

from cloner_core.errors import NotFoundError
from cloner_core.image.reference import VersionName
from cloner_server.state import channels, events
from cloner_server.state.database import Act
from cloner_server.state.tables import versions

_THERE = versions.c.removed_s.is_(None)


def add_version(connection: Connection, act: Act, image: str, number: int, digest: str) -> None:
    """Make a stored version visible; doing it twice changes nothing, nor does it for one that was removed."""
    if is_known(connection, image, number):
        return
    values = {"image": image, "number": number, "digest": digest}
    connection.execute(insert(versions).values(values | {"published_s": act.now_s, "author": act.author}))
    events.record(connection, act, f"image/{image}:{number}", "published", revision=number, digest=digest)


def is_known(connection: Connection, image: str, number: int) -> bool:
    """Whether a version is or was visible."""
    return known_digest(connection, image, number) is not None


def known_digest(connection: Connection, image: str, number: int) -> str | None:
    """Return the digest of a version that is or was visible; None for no such version."""
    query = select(versions.c.digest).where(versions.c.image == image, versions.c.number == number)
    return connection.execute(query).scalar_one_or_none()


def get_version(connection: Connection, image: str, version: VersionName | None = None) -> Row[tuple[object, ...]]:
    """Return the row of `image`:`version`, the newest when None; raises NotFoundError."""
    number = version
    if isinstance(version, str):
        number = channels.number_of(connection, image, version) if list_versions(connection, image) else 0
    query = select(versions).where(versions.c.image == image, _THERE).order_by(versions.c.number.desc()).limit(1)
    if number is not None:
        query = query.where(versions.c.number == number)
    row = connection.execute(query).one_or_none()
    if row is None:
        shown = image if version is None else f"{image}:{version}"
        raise NotFoundError(f"no such image: '{shown}'", hint="cloner image-list shows all")
    return row


def list_versions(connection: Connection, image: str = "") -> list[Row[tuple[object, ...]]]:
    """Return the published versions, of `image` alone when it is given, by name and number."""
    query = select(versions).where(_THERE).order_by(versions.c.image, versions.c.number)
    if image:
        query = query.where(versions.c.image == image)
    return list(connection.execute(query))


def version_numbers(connection: Connection) -> list[tuple[str, int]]:
    """Return image and number of every published version."""
    return [(row.image, row.number) for row in list_versions(connection)]


def removed_versions(connection: Connection) -> set[tuple[str, int]]:
    """Return image and number of every version that was removed."""
    query = select(versions.c.image, versions.c.number).where(versions.c.removed_s.is_not(None))
    return {(row.image, row.number) for row in connection.execute(query)}


def require_published(connection: Connection, digest: str) -> None:
    """Raise NotFoundError unless a published version has this digest."""
    if connection.execute(select(versions.c.image).where(versions.c.digest == digest, _THERE).limit(1)).first() is None:
        raise NotFoundError(f"no published version has the digest {digest}", hint="cloner image-list shows all")
