"""Scripts of images over the API of admins."""

from __future__ import annotations

from typing import Any

from litestar import get, post
from litestar.params import FromPath, FromQuery, JSONBody

from cloner_core.image.reference import parse_version
from cloner_core.scripts import ScriptChange, ScriptSetView
from cloner_server.api.callers import CoreDependency, who
from cloner_server.api.faults import AnyRequest
from cloner_server.state import scripts

_OK = 200


@get("/images/{name:str}/scripts", sync_to_thread=True)
def scripts_show(
    core: CoreDependency,
    name: FromPath[str],
    version: FromQuery[str] = "",
    number: FromQuery[int | None] = None,
) -> ScriptSetView:
    """Show the scripts a deploy of a version runs, of the newest by default; or the set with a number."""
    with core.database.read() as connection:
        return scripts.view_set(connection, name, parse_version(version), number)


@get("/images/{name:str}/scripts/all", sync_to_thread=True)
def scripts_list(core: CoreDependency, name: FromPath[str]) -> list[ScriptSetView]:
    """List every set an image had, the newest first."""
    with core.database.read() as connection:
        return scripts.list_sets(connection, name)


@post("/images/{name:str}/scripts", sync_to_thread=True, status_code=_OK)
def scripts_change(
    core: CoreDependency,
    *,
    request: AnyRequest,
    name: FromPath[str],
    data: JSONBody[ScriptChange],
    version: FromQuery[str] = "",
    dry_run: FromQuery[bool] = False,
) -> ScriptSetView:
    """Put or remove one script: the next set of the image."""
    with core.database.trial(dry_run) as connection:
        return scripts.change_set(connection, who(core, request), name, data, parse_version(version))


def script_handlers() -> list[Any]:
    """Return the handlers of scripts."""
    return [scripts_show, scripts_list, scripts_change]
