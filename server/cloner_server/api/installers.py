"""Installers over the API of admins: their parts, what they are, and who boots which."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from litestar import delete, get, patch, post, put
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import UNSET
from sqlalchemy import Connection

from cloner_core.admin.installers import (
    FleetDevice,
    ImageInstaller,
    ImageInstallerView,
    InstallerChange,
    InstallerSpec,
    InstallerView,
)
from cloner_core.errors import RefusedError
from cloner_core.messages import Granted
from cloner_server.api.callers import CoreDependency, require_installer, who
from cloner_server.api.faults import AnyRequest
from cloner_server.core import Core
from cloner_server.shelf import MOST_PART_BYTES, Shelf
from cloner_server.state import images, installers, nodes

_OK = 200
_PIECE_BYTES = 1 << 20


@get("/installers", sync_to_thread=True)
def installer_list(core: CoreDependency) -> list[InstallerView]:
    """List every installer that was made from a node."""
    with core.database.read() as connection:
        return [_with_memory(core, view) for view in installers.list_installers(connection)]


@get("/installers/{name:str}", sync_to_thread=True)
def installer_show(core: CoreDependency, name: FromPath[str]) -> InstallerView:
    """Show one installer."""
    with core.database.read() as connection:
        return _with_memory(core, installers.get_installer(connection, name))


@get("/fleet-devices", sync_to_thread=True)
def fleet_devices(core: CoreDependency) -> list[FleetDevice]:
    """List the disk controllers and network cards that inventories told of: an installer must drive them."""
    with core.database.read() as connection:
        told = list(nodes.all_facts(connection))
    counts: dict[str, int] = {}
    known = {}
    for facts in told:
        for device in {one.modalias: one for one in facts.pci if one.modalias}.values():
            known[device.modalias] = device
            counts[device.modalias] = counts.get(device.modalias, 0) + 1
    return [FleetDevice(one, known[one].id, known[one].is_storage, counts[one]) for one in sorted(known)]


@put("/installer-parts/{digest:str}", request_max_body_size=MOST_PART_BYTES, status_code=_OK)
async def part_put(core: CoreDependency, request: AnyRequest, digest: FromPath[str]) -> Granted:
    """Keep a kernel or a layer of drivers; it must have this digest. It goes to the disk as it comes."""
    part = await asyncio.to_thread(_shelf(core).open_part, digest)
    try:
        async for piece in _pieces(request):
            await asyncio.to_thread(part.write, piece)
        await asyncio.to_thread(part.keep)
    finally:
        part.drop()
    return Granted()


@post("/installers/{name:str}", sync_to_thread=True, status_code=_OK)
def installer_put(
    core: CoreDependency,
    request: AnyRequest,
    name: FromPath[str],
    data: JSONBody[InstallerSpec],
    dry_run: FromQuery[bool] = False,
) -> InstallerView:
    """Make an installer of parts that were put, or replace one, which stays as the previous."""
    shelf, act = _shelf(core), who(core, request)
    with core.database.read() as connection:
        require_installer(connection, request, name)
    build = shelf.build(data, act.author, act.now_s)
    if not dry_run:
        shelf.require_room(build)
        shelf.installer(build)  # put together before anybody is offered it: the disk may be full
    with core.database.trial(dry_run) as connection:
        require_installer(connection, request, name)
        with _kept_a_day(core, connection, is_dry=dry_run):
            view = installers.put_installer(
                connection, act, name, build, overwrite=data.overwrite, revision=data.revision
            )
        kept = installers.kept_builds(connection)
    if not dry_run:
        shelf.sweep(kept)
    return _with_memory(core, view)


@patch("/installers/{name:str}", sync_to_thread=True)
def installer_put_back(
    core: CoreDependency,
    request: AnyRequest,
    name: FromPath[str],
    data: JSONBody[InstallerChange],
    dry_run: FromQuery[bool] = False,
) -> InstallerView:
    """Put the previous build back; the present one becomes the previous."""
    with core.database.trial(dry_run) as connection:
        view = installers.put_back(connection, who(core, request), name, data.revision)
    return _with_memory(core, view)


@delete("/installers/{name:str}", sync_to_thread=True, status_code=_OK)
def installer_remove(
    core: CoreDependency,
    request: AnyRequest,
    name: FromPath[str],
    revision: FromQuery[int | None] = None,
    dry_run: FromQuery[bool] = False,
) -> InstallerView:
    """Remove an installer that no node and no image names; its files go a day later."""
    known = UNSET if revision is None else revision
    with core.database.trial(dry_run) as connection, _kept_a_day(core, connection, is_dry=dry_run):
        view = installers.remove_installer(connection, who(core, request), name, known)
    return _with_memory(core, view)


@patch("/images/{name:str}/installer", sync_to_thread=True)
def image_installer_set(
    core: CoreDependency,
    request: AnyRequest,
    name: FromPath[str],
    data: JSONBody[ImageInstaller],
    dry_run: FromQuery[bool] = False,
) -> ImageInstallerView:
    """Say which installer the nodes of an image boot; a node's own word goes before it."""
    with core.database.trial(dry_run) as connection:
        images.get_version(connection, name)
        return installers.set_image(connection, who(core, request), name, data)


def node_installer_handlers() -> list[Any]:
    """Return the handlers that a node needs to put its installer."""
    return [installer_show, fleet_devices, part_put, installer_put]


def installer_handlers() -> list[Any]:
    """Return all handlers of installers."""
    return [
        *node_installer_handlers(),
        installer_list,
        installer_put_back,
        installer_remove,
        image_installer_set,
    ]


def _shelf(core: Core) -> Shelf:
    if core.shelf is None:
        raise RefusedError(
            "this server has no userland for an installer: it offers no agent", hint="cloner serve --installer DIR"
        )
    return core.shelf


@contextmanager
def _kept_a_day(core: Core, connection: Connection, *, is_dry: bool) -> Iterator[None]:
    """Have the files of builds that the block drops stay for a day from now; another put may sweep after the commit."""
    before = installers.kept_builds(connection)
    yield
    if core.shelf is not None and not is_dry:
        kept = installers.kept_builds(connection)
        core.shelf.touch([build for build in before if build not in kept])


def _with_memory(core: Core, view: InstallerView) -> InstallerView:
    if core.shelf is None:
        return view
    return msgspec.structs.replace(view, needed_bytes=core.shelf.needed_bytes(view.present))


async def _pieces(request: AnyRequest) -> AsyncIterator[bytearray]:
    """Give the body in pieces of about a mebibyte: a thread is asked less often than the network brings something."""
    piece = bytearray()
    async for block in request.stream():
        piece += block
        if len(piece) >= _PIECE_BYTES:
            yield piece
            piece = bytearray()
    yield piece
