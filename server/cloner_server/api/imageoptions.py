"""The options that are kept with an image, over the API."""

from __future__ import annotations

from typing import Any

from litestar import get, patch
from litestar.params import FromPath, FromQuery, JSONBody

from cloner_core.admin.options import OptionsChange, OptionsView
from cloner_core.image.version import check_image_name
from cloner_server.api.callers import CoreDependency, require_image, who
from cloner_server.api.faults import AnyRequest
from cloner_server.state import imageoptions, images


@get("/images/{name:str}/options", sync_to_thread=True)
def options_show(core: CoreDependency, request: AnyRequest, name: FromPath[str]) -> OptionsView:
    """Show the options of an image, which need not be there yet."""
    require_image(request, name)
    with core.database.read() as connection:
        return imageoptions.view(connection, check_image_name(name))


@patch("/images/{name:str}/options", sync_to_thread=True)
def options_change(
    core: CoreDependency,
    request: AnyRequest,
    name: FromPath[str],
    data: JSONBody[OptionsChange],
    dry_run: FromQuery[bool] = False,
) -> OptionsView:
    """Keep options with an image in place of those it has; no version is made."""
    require_image(request, name)
    with core.database.trial(dry_run) as connection:
        images.get_version(connection, name)
        return imageoptions.keep(connection, who(core, request), name, data.options, revision=data.revision)


def options_handlers() -> list[Any]:
    """Return the handlers of options, which a golden node needs as well."""
    return [options_show, options_change]
