"""Looking at versions over the API of admins: what differs between two of them, and every part of one."""

from __future__ import annotations

from typing import Any

from litestar import get
from litestar.params import FromPath, FromQuery
from litestar.types import ASGIApp

from cloner_core.admin.differences import ImageDiff
from cloner_core.admin.images import SignedVersion
from cloner_core.errors import NotFoundError
from cloner_core.image.digest import parse_digest
from cloner_server.api.callers import CoreDependency
from cloner_server.api.parts import send_part
from cloner_server.catalog import Part
from cloner_server.comparing import Published, compare_versions
from cloner_server.core import Core
from cloner_server.state import images

_PARTS = {part.name.lower().replace("_", ""): part for part in Part}


@get("/images/{name:str}/diff", sync_to_thread=True)
def image_diff(
    core: CoreDependency,
    name: FromPath[str],
    other: FromQuery[str],
    number: FromQuery[int | None] = None,
    other_number: FromQuery[int | None] = None,
) -> ImageDiff:
    """Compare a version of an image with one of `other`, the newest ones by default."""
    before, after = _published(core, name, number), _published(core, other, other_number)
    return compare_versions(core.catalog.store, before, after)


@get("/images/{name:str}/signed", sync_to_thread=True)
def image_signed(core: CoreDependency, name: FromPath[str], number: FromQuery[int | None] = None) -> SignedVersion:
    """Show a version with its signatures, as an agent is told it, and the key of this server."""
    with core.database.read() as connection:
        row = images.get_version(connection, name, number)
    return SignedVersion(core.catalog.version_ref(row.image, row.number), core.site.public_key.hex())


@get("/versions/{version:str}/{pack_map:str}/{part:str}/{digest:str}", sync_to_thread=True)
def version_part(
    core: CoreDependency, version: FromPath[str], pack_map: FromPath[str], part: FromPath[str], digest: FromPath[str]
) -> ASGIApp:
    """Send one part of a published version by one of its maps: root, segment, packmap, pack or placement."""
    kind = _PARTS.get(part)
    if kind is None:
        raise NotFoundError(f"a version has no part '{part}'", hint=", ".join(_PARTS))
    with core.database.read() as connection:
        images.require_published(connection, version)
    return send_part(
        core.catalog, core.catalog.find_by_map(parse_digest(version), parse_digest(pack_map)), kind, digest
    )


def looking_handlers() -> list[Any]:
    """Return the handlers of looking at versions."""
    return [image_diff, image_signed, version_part]


def _published(core: Core, name: str, number: int | None) -> Published:
    with core.database.read() as connection:
        row = images.get_version(connection, name, number)
    version = core.catalog.find(core.catalog.version_ref(row.image, row.number))
    return Published(row.image, row.number, row.published_s, version)
