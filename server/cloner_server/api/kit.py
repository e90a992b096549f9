"""The kit of golden nodes: what the line is made of that installs it, and its files on the plain port.

Nothing of it is secret. Whoever fetches compares with digests that came by another way, in that line.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

from litestar import get
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from cloner_core.admin.kit import KitView
from cloner_core.errors import ClonerError
from cloner_initramfs.kit import archive_name, install_name, read_kit
from cloner_server.api.callers import CoreDependency
from cloner_server.core import Core

_CHUNK_BYTES = 1 << 20
_PATH = "/kit"


def kit_directory(state: Path) -> Path:
    """Return where a server looks for the kit."""
    return state / "kit"


@get("/kit", sync_to_thread=True)
def kit_show(core: CoreDependency) -> KitView:
    """Show the kit that is given away; 404 while none was built."""
    manifest = read_kit(kit_directory(core.state_directory))
    return KitView(
        version=manifest.version,
        size_bytes=manifest.size_bytes,
        address=core.rules.confirm_host,
        http_port=core.rules.confirm_port,
        tls_port=core.tls_port,
        install_path=f"{_PATH}/{install_name(manifest)}",
        install_digest=manifest.install_digest,
        ca_digest=hashlib.sha256(core.site.ca_pem).hexdigest(),
    )


def kit_handlers() -> list[Any]:
    """Return the handlers of the kit."""
    return [kit_show]


def kit_routes(core: Core) -> list[Route]:
    """Return the routes of the plain port: the CA, the script, the archive."""

    async def give(request: Request) -> Response:
        name = request.path_params["name"]
        if name == "ca.pem":
            return Response(core.site.ca_pem, media_type="application/x-pem-file")
        directory = kit_directory(core.state_directory)
        try:
            manifest = await asyncio.to_thread(read_kit, directory)
        except ClonerError as fault:
            return Response(f"{fault.message}\n", 404, media_type="text/plain")
        if name not in (archive_name(manifest), install_name(manifest)):
            return Response("not found\n", 404, media_type="text/plain")
        response = FileResponse(directory / name, media_type="application/octet-stream")
        response.chunk_size = _CHUNK_BYTES
        return response

    return [Route(f"{_PATH}/{{name}}", give, methods=["GET"])]
