"""How a stored part of a version is sent, to whoever may have it."""

from __future__ import annotations

from litestar.types import ASGIApp, Message, Receive, Scope, Send
from starlette.responses import FileResponse, Response

from cloner_core.image.digest import parse_digest
from cloner_server.admission import Admission
from cloner_server.catalog import Catalog, Part, Version

_CHUNK_BYTES = 1 << 20  # Starlette's 64 KiB costs two to four times the CPU
# OpenSSL keeps a buffer of the biggest piece that a connection was ever given, until it is closed.
_PIECE_BYTES = 128 << 10
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
    """Return `answer`, sent when there is a place for it; it has the place until the last of it is on the wire."""

    async def wait_and_send(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_and_drain(message: Message) -> None:
            if message["type"] != "http.response.body":
                await send(message)
                return
            content = message.get("body", b"")
            for start in range(0, len(content), _PIECE_BYTES):
                await send(_body(content[start : start + _PIECE_BYTES], more=True))
            if not message.get("more_body", False):
                # uvicorn waits for its buffer to empty before it takes a piece, not after: one more piece, of nothing.
                await send(_body(b"", more=False))

        async with admission.place():
            await answer(scope, receive, send_and_drain)

    return wait_and_send


def _body(content: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": more}


def _as_asgi(response: Response) -> ASGIApp:
    return response  # type: ignore[return-value]  # Starlette and Litestar name the same protocol differently
