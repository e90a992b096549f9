"""How a stored part of a version is sent, to whoever may have it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

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
    return _as_asgi(Response(found, media_type=_BYTES)) if isinstance(found, bytes) else _send_file(found)


def send_pack(admission: Admission, catalog: Catalog, version: Version, digest: str) -> ASGIApp:
    """Return the answer that is this pack, sent when there is a place for it; Range allowed.

    It has the place until the last of it is on the wire. The answer raises NotFoundError when the version has no such
    pack.
    """
    name = parse_digest(digest)

    async def wait_and_send(scope: Scope, receive: Receive, send: Send) -> None:
        async with admission.place():
            if any(header == b"range" for header, _ in scope["headers"]):
                path = await asyncio.to_thread(_path_of, catalog, version, name)
                await _send_file(path)(scope, receive, send)
            else:
                await _stream(lambda: (b"", _path_of(catalog, version, name)), send)

    return wait_and_send


def send_parcel(admission: Admission, find: Callable[[], tuple[bytes, Path]]) -> ASGIApp:
    """Return the answer that is a parcel: what `find` gives, the file behind the bytes; when there is a place for it.

    `find` is called in a thread; what it raises, the answer does.
    """

    async def wait_and_send(_scope: Scope, _receive: Receive, send: Send) -> None:
        async with admission.place():
            await _stream(find, send)

    return wait_and_send


def send_bytes(content: bytes) -> ASGIApp:
    """Return the answer that is these bytes."""
    return _as_asgi(Response(content, media_type=_BYTES))


def _path_of(catalog: Catalog, version: Version, pack: bytes) -> Path:
    path = catalog.locate(version, Part.PACK, pack)
    assert isinstance(path, Path)
    return path


def _send_file(path: Path) -> ASGIApp:
    response = FileResponse(path, media_type=_BYTES)
    response.chunk_size = _CHUNK_BYTES
    return _as_asgi(response)


async def _stream(find: Callable[[], tuple[bytes, Path]], send: Send) -> None:
    """Send bytes and a whole file behind them, which `find` finds.

    It takes a third of the CPU of Starlette's answer for a file of a MiB or two.
    Threads do what may wait for a disk, as seldom as can be: each errand costs a tenth of the TLS of a pack.
    """

    def begin() -> tuple[BinaryIO, int, bytes]:
        head, path = find()
        file = path.open("rb", buffering=0)  # closed by itself, should nobody be there any more to take it
        return file, len(head) + os.fstat(file.fileno()).st_size, head + file.read(_CHUNK_BYTES)

    file, size, content = await asyncio.to_thread(begin)
    with file:
        headers = [(b"content-type", _BYTES.encode()), (b"content-length", b"%d" % size), (b"accept-ranges", b"bytes")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        sent = 0
        while content:
            view = memoryview(content)
            for start in range(0, len(content), _PIECE_BYTES):
                await send(_body(view[start : start + _PIECE_BYTES], more=True))
            sent += len(content)
            content = await asyncio.to_thread(file.read, _CHUNK_BYTES) if sent < size else b""
        # uvicorn waits for its buffer to empty before it takes a piece, not after: one more piece, of nothing.
        await send(_body(b"", more=False))


def _body(content: bytes | memoryview, *, more: bool) -> Message:
    return cast(Message, {"type": "http.response.body", "body": content, "more_body": more})


def _as_asgi(response: Response) -> ASGIApp:
    return response  # type: ignore[return-value]  # Starlette and Litestar name the same protocol differently
