"""What nodes get, over the API of admins: of an image with a layout, and by what is known of nodes."""

from __future__ import annotations

from typing import Any

from litestar import get, post
from litestar.params import FromPath, FromQuery, JSONBody

from cloner_core.admin.configs import Identified, IdentifyRequest, ImageConfig
from cloner_core.image.reference import parse_version
from cloner_server.api.callers import CoreDependency
from cloner_server.identifying import describe, identify
from cloner_server.state import images, layouts, scripts

_OK = 200
_VALUES_BYTES = 16 << 20  # thousands of nodes


@get("/images/{name:str}/config", sync_to_thread=True)
def image_config(
    core: CoreDependency,
    name: FromPath[str],
    layout: FromQuery[str],
    number: FromQuery[str] = "",
    layout_number: FromQuery[int | None] = None,
) -> ImageConfig:
    """Show what a node with a version of this image and a layout gets, the newest ones by default."""
    with core.database.read() as connection:
        newest = images.get_version(connection, name).number
        row = images.get_version(connection, name, parse_version(number))
        view = layouts.get_layout(connection, layout, layout_number)
        kept = scripts.view_set(connection, name, row.number)
    return describe(
        core.catalog.store.version(name, row.number),
        core.catalog.find(core.catalog.version_ref(name, row.number)),
        newest=newest,
        published_s=row.published_s,
        author=row.author,
        scripts=kept,
        layout=view,
    )


@post("/identify", sync_to_thread=True, request_max_body_size=_VALUES_BYTES, status_code=_OK)
def identify_nodes(core: CoreDependency, data: JSONBody[IdentifyRequest]) -> Identified:
    """Show the image data of nodes; what is nobody's is listed beside them."""
    with core.database.read() as connection:
        return identify(connection, data)


def config_handlers() -> list[Any]:
    """Return the handlers of what nodes get."""
    return [image_config, identify_nodes]
