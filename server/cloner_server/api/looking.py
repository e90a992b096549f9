"""Looking at versions over the API of admins: what differs between two of them."""

from __future__ import annotations

from typing import Any

from litestar import get
from litestar.params import FromPath, FromQuery

from cloner_core.admin.differences import ImageDiff
from cloner_server.api.callers import CoreDependency
from cloner_server.comparing import Published, compare_versions
from cloner_server.core import Core
from cloner_server.state import images


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


def looking_handlers() -> list[Any]:
    """Return the handlers of looking at versions."""
    return [image_diff]


def _published(core: Core, name: str, number: int | None) -> Published:
    with core.database.read() as connection:
        row = images.get_version(connection, name, number)
    version = core.catalog.find(core.catalog.version_ref(row.image, row.number))
    return Published(row.image, row.number, row.published_s, version)
