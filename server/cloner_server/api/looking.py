"""Looking at versions over the API of admins: what differs between two, whether one is whole, and every part of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from litestar import get
from litestar.params import FromPath, FromQuery
from litestar.response import Stream
from litestar.types import ASGIApp

from cloner_core.admin.differences import ImageDiff
from cloner_core.admin.images import ServerKey, SignedVersion, StoreFault, VerifyProgress, VerifyReport
from cloner_core.errors import ClonerError, NotFoundError, RefusedError
from cloner_core.image.digest import parse_digest
from cloner_core.image.reference import parse_version
from cloner_server.api.callers import CoreDependency
from cloner_server.api.parts import send_part
from cloner_server.catalog import Part
from cloner_server.comparing import Published, compare_versions
from cloner_server.core import Core
from cloner_server.state import images
from cloner_server.store.exporting import END, Member, members_of, total_bytes

log = logging.getLogger(__name__)

_TELL_EVERY_S = 0.5
_PARTS = {part.name.lower().replace("_", ""): part for part in Part}


@get("/images/{name:str}/diff", sync_to_thread=True)
def image_diff(
    core: CoreDependency,
    name: FromPath[str],
    other: FromQuery[str],
    number: FromQuery[str] = "",
    other_number: FromQuery[str] = "",
) -> ImageDiff:
    """Compare a version of an image with one of `other`, the newest ones by default."""
    before, after = _published(core, name, number), _published(core, other, other_number)
    return compare_versions(core.catalog.store, before, after)


@get("/images/{name:str}/signed", sync_to_thread=True)
def image_signed(core: CoreDependency, name: FromPath[str], number: FromQuery[str] = "") -> SignedVersion:
    """Show a version with its signatures, as an agent is told it, and the key of this server."""
    with core.database.read() as connection:
        row = images.get_version(connection, name, parse_version(number))
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


@get("/images/{name:str}/verify")
async def image_verify(core: CoreDependency, name: FromPath[str], number: FromQuery[str] = "") -> Stream:
    """Verify a version to its last byte: lines of JSON, how far it is (`progress`) and at the end what was found."""
    image, chosen, digest = await asyncio.to_thread(_named, core, name, number)
    return Stream(_verifying(core, image, chosen, digest), media_type="application/x-ndjson")


@get("/key", sync_to_thread=False)
def server_key(core: CoreDependency) -> ServerKey:
    """Show the public key by which this server's versions and receipts are verified."""
    return ServerKey(core.site.public_key.hex())


@get("/images/{name:str}/export")
async def image_export(core: CoreDependency, name: FromPath[str], number: FromQuery[str] = "") -> Stream:
    """Send a version as one file, a tar of a store that holds it alone (docs/image-format.md)."""
    image, chosen, _ = await asyncio.to_thread(_named, core, name, number)
    members = await asyncio.to_thread(members_of, core.catalog.store, image, chosen)
    headers = {"content-length": str(total_bytes(members)), "cloner-version": f"{image}:{chosen}"}
    return Stream(_exporting(core, members), media_type="application/x-tar", headers=headers)


async def _exporting(core: Core, members: list[Member]) -> AsyncGenerator[bytes, None]:
    for member in members:
        yield member.header
        pieces = member.pieces()
        while (piece := await asyncio.to_thread(next, pieces, b"")) and not core.stopping.is_set():
            yield piece
        if core.stopping.is_set():
            raise RefusedError("the server is being stopped")  # the answer is cut off, and so seen to be
        yield member.padding
    yield END


def looking_handlers() -> list[Any]:
    """Return the handlers of looking at versions."""
    return [image_diff, image_signed, version_part, image_verify, image_export, server_key]


class _StoppedError(Exception):
    """Nobody wants to know any more."""


class _Watch:
    """Between the thread that reads and the coroutine that tells."""

    def __init__(self) -> None:
        self.latest: VerifyProgress | None = None
        self.is_stopped = False

    def __call__(self, progress: VerifyProgress) -> None:
        if self.is_stopped:
            raise _StoppedError
        self.latest = progress


async def _verifying(core: Core, image: str, number: int, digest: str) -> AsyncGenerator[bytes, None]:
    watch = _Watch()
    # A thread of its own: it may take an hour, and heartbeats wait for those that all requests share.
    pool = ThreadPoolExecutor(1, "image-verify")
    work = asyncio.get_running_loop().run_in_executor(pool, _verify, core, image, number, digest, watch)
    try:
        while not core.stopping.is_set():
            await asyncio.wait([work], timeout=_TELL_EVERY_S)
            if work.done():
                yield msgspec.json.encode(work.result()) + b"\n"
                return
            if watch.latest is not None:
                yield msgspec.json.encode(watch.latest) + b"\n"
    finally:
        watch.is_stopped = True
        work.cancel()
        pool.shutdown(wait=False)


def _verify(core: Core, image: str, number: int, digest: str, watch: _Watch) -> VerifyReport | None:
    name = f"version {image}/{number}"
    try:
        report = core.catalog.store.verify(image, number, watch)
    except ClonerError as fault:
        faults = (StoreFault(name, fault.message),)
        return VerifyReport(image, number, digest, core.site.public_key.hex(), faults, 0, 0)
    except _StoppedError:
        log.info("the verification of %s:%d was broken off: nobody waits for it", image, number)
        return None
    if report.digest == digest:
        return report
    other = StoreFault(name, f"its record is of version {report.digest}, and {digest} was published")
    return msgspec.structs.replace(report, digest=digest, faults=(other, *report.faults))


def _named(core: Core, name: str, number: str) -> tuple[str, int, str]:
    with core.database.read() as connection:
        row = images.get_version(connection, name, parse_version(number))
    return row.image, row.number, row.digest


def _published(core: Core, name: str, number: str) -> Published:
    with core.database.read() as connection:
        row = images.get_version(connection, name, parse_version(number))
    version = core.catalog.find(core.catalog.version_ref(row.image, row.number))
    return Published(row.image, row.number, row.published_s, version)
