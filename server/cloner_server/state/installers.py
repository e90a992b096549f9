"""Installers as they are kept: what each name means, what it meant before, and who boots it.

A removed name keeps its revision, so that an old one never matches again. Must not know the files;
`cloner_server.shelf` has them.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import Connection, Row, insert, select, update

from cloner_core.admin.installers import SITE, ImageInstaller, ImageInstallerView, InstallerBuild, InstallerView
from cloner_core.admin.names import check_name
from cloner_core.errors import ConflictError, NotFoundError, RefusedError
from cloner_server.state import events
from cloner_server.state.database import Act
from cloner_server.state.tables import image_installers, installers, nodes

_LISTING = "cloner installer list shows all"
_SHOWN = 20


def list_installers(connection: Connection) -> list[InstallerView]:
    """Return every installer, by name."""
    query = select(installers).where(installers.c.present.is_not(None)).order_by(installers.c.name)
    return [_view(connection, row) for row in connection.execute(query)]


def get_installer(connection: Connection, name: str) -> InstallerView:
    """Return one installer; raises NotFoundError."""
    row = _row(connection, name)
    if row is None or row.present is None:
        raise NotFoundError(f"no such installer: '{name}'", hint=_LISTING)
    return _view(connection, row)


def require_known(connection: Connection, name: str) -> None:
    """Raise NotFoundError unless `name` is an installer, or "": nothing is said."""
    if name:
        get_installer(connection, name)


def build_for(connection: Connection, node: str, image: str) -> InstallerBuild | None:
    """Return what `node` ("" a machine that is none) boots to get `image` ("" none); None: that of the settings.

    What the node says goes before what its image says, and both before the installer `site`.
    """
    said = connection.execute(select(nodes.c.installer).where(nodes.c.name == node)).scalar_one_or_none()
    if not said and image:
        of_image = select(image_installers.c.installer).where(image_installers.c.image == image)
        said = connection.execute(of_image).scalar_one_or_none()
    row = _row(connection, said or SITE)
    return None if row is None or row.present is None else _build(row.present)


def kept_builds(connection: Connection) -> list[InstallerBuild]:
    """Return every build whose files are to be kept: the present and the previous ones."""
    rows = connection.execute(select(installers.c.present, installers.c.previous))
    return [_build(text) for row in rows for text in row if text is not None]


def put_installer(
    connection: Connection,
    act: Act,
    name: str,
    build: InstallerBuild,
    *,
    overwrite: bool,
    revision: int | UnsetType = UNSET,
) -> InstallerView:
    """Have `name` mean `build`; what it meant stays as the previous one. The same parts again change nothing.

    Raises ConflictError when there is one and `overwrite` is not said, or its revision is another one.
    """
    check_name(name, "installer")
    row = _row(connection, name)
    before = None if row is None else row.present
    _require_revision(name, revision, 0 if row is None or before is None else row.revision)
    if row is not None and before is not None:
        known = _build(before)
        if (known.kernel, known.drivers) == (build.kernel, build.drivers):
            return _view(connection, row)
        if not overwrite:
            raise ConflictError(
                f"there is an installer '{name}' of kernel {known.release}",
                hint="--overwrite replaces it and keeps it as the previous one",
            )
    text = msgspec.json.encode(build).decode()
    detail = {"release": build.release, "source": build.source, "kernel": build.kernel[:12]}
    _write(connection, act, name, row, {"present": text, "previous": before}, what="put", detail=detail)
    return get_installer(connection, name)


def put_back(connection: Connection, act: Act, name: str, revision: int | UnsetType = UNSET) -> InstallerView:
    """Exchange the present build with the previous one; raises RefusedError when there is none."""
    view, row = get_installer(connection, name), _row(connection, name)
    _require_revision(name, revision, view.revision)
    if view.previous is None:
        raise RefusedError(f"the installer '{name}' has replaced none, so nothing can be put back", hint=_LISTING)
    swapped = {
        "present": msgspec.json.encode(view.previous).decode(),
        "previous": msgspec.json.encode(view.present).decode(),
    }
    _write(connection, act, name, row, swapped, what="put back", detail={"release": view.previous.release})
    return get_installer(connection, name)


def remove_installer(connection: Connection, act: Act, name: str, revision: int | UnsetType = UNSET) -> InstallerView:
    """Remove an installer that no node and no image names; raises RefusedError naming those that do."""
    view, row = get_installer(connection, name), _row(connection, name)
    _require_revision(name, revision, view.revision)
    users = [f"node {node}" for node in view.nodes] + [f"image {image}" for image in view.images]
    if users:
        shown = ", ".join(users[:_SHOWN]) + (" …" if len(users) > _SHOWN else "")
        raise RefusedError(
            f"the installer '{name}' is used by {shown}",
            hint="cloner installer use default --nodes SET | --image IMAGE",
        )
    _write(connection, act, name, row, {"present": None, "previous": None}, what="removed", detail={})
    return view


def set_image(connection: Connection, act: Act, image: str, asked: ImageInstaller) -> ImageInstallerView:
    """Have the nodes of an image boot an installer; raises NotFoundError for an unknown one, ConflictError."""
    require_known(connection, asked.installer)
    row = connection.execute(select(image_installers).where(image_installers.c.image == image)).one_or_none()
    revision, before = (0, "") if row is None else (row.revision, row.installer)
    if asked.revision is not UNSET and asked.revision != revision:
        raise ConflictError(
            f"the installer of image '{image}' has revision {revision}, not {asked.revision}", hint="read it again"
        )
    if before == asked.installer:
        return ImageInstallerView(image, before, revision)
    values = {"installer": asked.installer, "revision": revision + 1, "changed_s": act.now_s, "author": act.author}
    if row is None:
        connection.execute(insert(image_installers).values(values | {"image": image}))
    else:
        connection.execute(update(image_installers).where(image_installers.c.image == image).values(values))
    after = revision + 1
    events.record(
        connection, act, f"image/{image}", "installer set", revision=after, installer=asked.installer, before=before
    )
    return ImageInstallerView(image, asked.installer, revision + 1)


def _require_revision(name: str, wanted: int | UnsetType, present: int) -> None:
    if wanted is not UNSET and wanted != present:
        has = f"has revision {present}" if present else "does not exist"
        raise ConflictError(f"the installer '{name}' {has}, wanted revision {wanted}", hint="read it again")


def _row(connection: Connection, name: str) -> Row[tuple[Any, ...]] | None:
    return connection.execute(select(installers).where(installers.c.name == name)).one_or_none()


def _write(
    connection: Connection,
    act: Act,
    name: str,
    row: Row[tuple[Any, ...]] | None,
    values: dict[str, Any],
    *,
    what: str,
    detail: dict[str, Any],
) -> None:
    revision = 1 if row is None else row.revision + 1
    values = values | {"revision": revision, "changed_s": act.now_s, "author": act.author}
    if row is None:
        connection.execute(insert(installers).values(values | {"name": name}))
    else:
        connection.execute(update(installers).where(installers.c.name == name).values(values))
    events.record(connection, act, f"installer/{name}", what, revision=revision, **detail)


def _build(text: str) -> InstallerBuild:
    return msgspec.json.decode(text, type=InstallerBuild)


def _view(connection: Connection, row: Row[tuple[Any, ...]]) -> InstallerView:
    naming = select(nodes.c.name).where(nodes.c.installer == row.name).order_by(nodes.c.name)
    of_images = select(image_installers.c.image).where(image_installers.c.installer == row.name)
    return InstallerView(
        name=row.name,
        revision=row.revision,
        present=_build(row.present),
        previous=None if row.previous is None else _build(row.previous),
        needed_bytes=0,
        nodes=tuple(connection.execute(naming).scalars()),
        images=tuple(connection.execute(of_images.order_by(image_installers.c.image)).scalars()),
    )
