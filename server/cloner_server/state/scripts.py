"""Scripts of images: every change is a new set under the next number of the image; a number never changes.

A set is made for one version of the image and serves those after it, until one of them has a set of its own: an older
version is deployed with the scripts it had.
"""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, Row, func, insert, select

from cloner_core.errors import ConflictError, InvalidError, NotFoundError
from cloner_core.image.reference import VersionName
from cloner_core.scripts import Script, ScriptChange, ScriptSet, ScriptSetView, changed, script_faults, set_digest
from cloner_server.state import events, images
from cloner_server.state.database import Act
from cloner_server.state.tables import script_sets


def set_for(connection: Connection, image: str, version: int) -> ScriptSet:
    """Return the set that a deploy of `image`:`version` runs."""
    row = _row_for(connection, image, version)
    return ScriptSet() if row is None else ScriptSet(row.number, _scripts(row))


def set_numbered(connection: Connection, image: str, number: int) -> ScriptSet:
    """Return one set of `image`, as a task keeps its number; 0 is the empty one."""
    if number == 0:
        return ScriptSet()
    return ScriptSet(number, view_set(connection, image, None, number).scripts)


def view_set(
    connection: Connection, image: str, version: VersionName | None = None, number: int | None = None
) -> ScriptSetView:
    """Return the set of `image`:`version`, the newest version when None, or the one with `number`.

    Raises NotFoundError for an image, version or number that does not exist.
    """
    published = images.get_version(connection, image, version)
    if number is not None:
        query = select(script_sets).where(script_sets.c.image == image, script_sets.c.number == number)
        row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFoundError(
                f"no such set of scripts: '{image}' has no number {number}", hint="cloner script --list"
            )
        return _view(row)
    row = _row_for(connection, image, published.number)
    return _view(row) if row is not None else _empty(image, published.number)


def list_sets(connection: Connection, image: str) -> list[ScriptSetView]:
    """Return every set of `image`, the newest first; raises NotFoundError."""
    images.get_version(connection, image)
    query = select(script_sets).where(script_sets.c.image == image).order_by(script_sets.c.number.desc())
    return [_view(row) for row in connection.execute(query)]


def change_set(
    connection: Connection, act: Act, image: str, change: ScriptChange, version: VersionName | None = None
) -> ScriptSetView:
    """Make the next set of `image`:`version`, the newest version when None; what changes nothing makes none.

    Raises NotFoundError for what is to be removed and is not there, ConflictError when `change.number` is not that of
    the present set, InvalidError naming every fault.
    """
    if (change.put is None) == (change.remove is None):
        raise InvalidError("the change of scripts cannot be made", faults=["want one of put and remove"])
    published = images.get_version(connection, image, version)
    present = view_set(connection, image, published.number)
    if change.number not in (None, present.number):
        raise ConflictError(
            f"the scripts of {image}:{published.number} are number {present.number}, not {change.number}",
            hint="somebody changed them meanwhile: read them again",
        )
    if change.remove is not None and change.remove not in {(s.type, s.name) for s in present.scripts}:
        kind, name = change.remove
        raise NotFoundError(f"{image}:{published.number} has no {kind}-script '{name}'", hint="cloner script --list")
    scripts = changed(present.scripts, change)
    if faults := script_faults(scripts):
        raise InvalidError("the script cannot be used", faults=faults, hint="docs/scripts.md")
    if scripts == present.scripts:
        return present
    highest = select(func.max(script_sets.c.number)).where(script_sets.c.image == image)
    number = (connection.execute(highest).scalar_one() or 0) + 1
    values = {"image": image, "number": number, "version": published.number}
    values |= {"document": msgspec.json.encode(scripts).decode(), "created_s": act.now_s, "author": act.author}
    row = connection.execute(insert(script_sets).values(values).returning(script_sets)).one()
    what = f"{change.put.type} {change.put.name}" if change.put is not None else ""
    gone = " ".join(change.remove or ())
    obj = f"image/{image}:{published.number}"
    events.record(
        connection, act, obj, "scripts changed", revision=number, digest=set_digest(scripts), put=what, removed=gone
    )
    return _view(row)


def _row_for(connection: Connection, image: str, version: int) -> Row[tuple[Any, ...]] | None:
    query = select(script_sets).where(script_sets.c.image == image, script_sets.c.version <= version)
    newest = script_sets.c.version.desc(), script_sets.c.number.desc()
    return connection.execute(query.order_by(*newest).limit(1)).one_or_none()


def _scripts(row: Row[tuple[Any, ...]]) -> tuple[Script, ...]:
    return msgspec.json.decode(row.document, type=tuple[Script, ...])


def _view(row: Row[tuple[Any, ...]]) -> ScriptSetView:
    scripts = _scripts(row)
    return ScriptSetView(
        image=row.image,
        version=row.version,
        number=row.number,
        digest=set_digest(scripts),
        created_s=row.created_s,
        author=row.author,
        scripts=scripts,
    )


def _empty(image: str, version: int) -> ScriptSetView:
    return ScriptSetView(
        image=image, version=version, number=0, digest=set_digest(()), created_s=0.0, author="", scripts=()
    )
