"""How a stored part of a version is sent, to whoever may have it."""

from __future__ import annotations

from litestar.types import ASGIApp, Receive, Scope, Send
from starlette.responses import FileResponse, Response

from cloner_core.image.digest import parse_digest
from cloner_server.admission import Admission
from cloner_server.catalog import Catalog, Part, Version

_CHUNK_BYTES = 1 << 20  # Starlette's 64 KiB costs two to four times the CPU
_BYTES = "application/octet-stream"


def send_part(catalog: Catalog, version: Version, part: Part, digest: str) -> ASGIApp:
    """Return the answer that is this part of `version`, Range allowed where it is a file; raises NotFoundError."""
    found = catalog.locate(version, part, parse_digest(digest))
    if isinstance(found, bytes):
        return _as_asgi(Response(found, media_type=_BYTES))
    response = FileResponse(found, media_type=_BYTES)
    response.chunk_size = _CHUNK_BYTES
    return _as_asgi(response)


def admitted(admission: Admission, answer: ASGIApp) -> ASGIApp:
    """Return `answer`, sent when there is a place for it."""

    async def wait_and_send(scope: Scope, receive: Receive, send: Send) -> None:
        async with admission.place():
            await answer(scope, receive, send)

    return wait_and_send


def _as_asgi(response: Response) -> ASGIApp:
    return response  # type: ignore[return-value]  # Starlette and Litestar name the same protocol differently
