"""Images over the API of admins: what is published, and the putting of parts by a capture on another machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import Response, delete, get, post, put
from litestar.params import FromPath, FromQuery, JSONBody, RawBody
from sqlalchemy import Connection, Row

from cloner_core.admin.images import CheckReport, Collected, ImageView, Removal, StoreFault, WantedPacks
from cloner_core.admin.store import Repacked, StoreRoom, StoreStats
from cloner_core.decoding import UNREADABLE
from cloner_core.errors import ClonerError, InvalidError
from cloner_core.image.digest import parse_digest
from cloner_core.image.reference import parse_version
from cloner_core.image.version import Draft, VersionRecord, check_image_name
from cloner_core.messages import Granted
from cloner_server.api.callers import CoreDependency, require_image, who
from cloner_server.api.faults import AnyRequest
from cloner_server.api.imageoptions import options_handlers
from cloner_server.core import Core
from cloner_server.publishing import (
    NO_RECORD,
    require_options,
    require_records,
    shown_or_taken_back,
    take_away,
    without_record,
)
from cloner_server.state import channels, events, imageoptions, images, publishing, removal
from cloner_server.state import tasks as rows
from cloner_server.store.protocol import SizedSegment

_PACK_BYTES, _DRAFT_BYTES = 64 << 20, 1 << 30
_MESSAGEPACK = "application/vnd.msgpack"
_SIZE = re.compile(r"[0-9]{1,10}")
_OK = 200
GRACE_S = 86400.0  # a capture may put packs long before it publishes


@get("/images", sync_to_thread=True)
def image_list(core: CoreDependency) -> list[ImageView]:
    """List every published version."""
    with core.database.read() as connection:
        published = images.list_versions(connection)
        pointing = channels.pointing(connection)
    return [_view(core, row, pointing.get((row.image, row.number), ())) for row in published]


@get("/images/{name:str}", sync_to_thread=True)
def image_show(
    core: CoreDependency, request: AnyRequest, name: FromPath[str], number: FromQuery[str] = ""
) -> ImageView:
    """Show one version of an image, by number or channel, the newest by default."""
    require_image(request, name)
    with core.database.read() as connection:
        row = images.get_version(connection, name, parse_version(number))
        pointing = channels.pointing(connection, name)
        options = imageoptions.view(connection, name).options
    return msgspec.structs.replace(_view(core, row, pointing.get((row.image, row.number), ())), options=options)


@delete("/images/{name:str}/versions/{number:int}", status_code=_OK)
async def version_remove(
    core: CoreDependency,
    request: AnyRequest,
    name: FromPath[str],
    number: FromPath[int],
    dry_run: FromQuery[bool] = False,
) -> Removal:
    """Remove a version that nothing uses; its number is never given again, its bytes go with the next gc."""
    return await core.work.keep_up(_remove, core, request, name, number, is_dry=dry_run)


def _remove(core: Core, request: AnyRequest, name: str, number: int, *, is_dry: bool) -> Removal:
    with core.database.trial(is_dry) as connection:
        removed = removal.remove_version(connection, who(core, request), name, number)
    if not is_dry:
        take_away(core.catalog.store, name, number)
    return removed


@get("/chunks/known", sync_to_thread=True)
def known(core: CoreDependency, request: AnyRequest, image: FromQuery[str]) -> Response[bytes]:
    """Send the packs of the latest version of an image, in MessagePack: what the next capture need not send."""
    require_image(request, image)
    base = core.catalog.store.base(check_image_name(image))
    return Response(msgspec.msgpack.encode(base), media_type=_MESSAGEPACK)


@put("/packs/{digest:str}", request_max_body_size=_PACK_BYTES, status_code=_OK)
async def pack_put(core: CoreDependency, digest: FromPath[str], body: RawBody) -> Granted:
    """Keep a pack; it must have this digest."""
    await core.work.put(core.catalog.store.put_pack, parse_digest(digest), body)
    return Granted()


@post("/packs/missing", status_code=_OK)
async def packs_missing(core: CoreDependency, data: JSONBody[WantedPacks]) -> list[str]:
    """Tell which of these packs the store does not have; those it has are kept for the grace of a gc."""
    wanted = {parse_digest(name): size for name, size in data.packs.items()}
    return [name.hex() for name in await core.work.put(core.catalog.store.keep_packs, wanted)]


@put("/segments/{digest:str}", request_max_body_size=_PACK_BYTES, status_code=_OK)
async def segment_put(
    core: CoreDependency, digest: FromPath[str], raw_size: FromQuery[int], body: RawBody, onto: FromQuery[str] = ""
) -> Granted:
    """Keep a compressed segment of a tree; unpacked, with those in `onto` before it, it has this size and digest."""
    others = [_sized(one) for one in onto.split(",") if one]
    await core.work.put(core.catalog.store.put_segment, parse_digest(digest), raw_size, body, others)
    return Granted()


def _sized(text: str) -> SizedSegment:
    name, _, size = text.partition(":")
    if not _SIZE.fullmatch(size):
        raise InvalidError(f"{text[:90]!r} is not digest:size of a segment")
    return parse_digest(name), int(size)


@post("/publish", request_max_body_size=_DRAFT_BYTES, status_code=_OK)
async def publish(core: CoreDependency, request: AnyRequest, body: RawBody) -> VersionRecord:
    """Make a draft (MessagePack) the next version of its image: checked from its root to its last chunk, then shown."""
    return await core.work.publish(_publish, core, request, body)


def _publish(core: Core, request: AnyRequest, body: bytes) -> VersionRecord:
    try:
        draft = msgspec.msgpack.decode(body, type=Draft)
    except UNREADABLE as fault:
        raise InvalidError(f"the body is not a draft: {fault}") from fault
    require_image(request, draft.image)
    with core.database.read() as connection:
        require_options(connection, core.catalog.store, draft)
    record = core.catalog.store.publish(draft)
    with shown_or_taken_back(core.catalog.store, record), core.database.write() as connection:
        publishing.show(connection, who(core, request), record)
    return record


@post("/store/check", status_code=_OK)
async def check(core: CoreDependency, read_data: FromQuery[bool] = False) -> CheckReport:
    """Verify everything published; with `read_data` every byte of it."""
    return await core.work.keep_up(_check, core, read_data=read_data)


def _check(core: Core, *, read_data: bool) -> CheckReport:
    report = core.catalog.store.check(read_data=read_data)
    lost = without_record(core.database, core.catalog.store)
    faults = tuple(StoreFault(f"version {image}/{number}", NO_RECORD) for image, number in lost)
    return msgspec.structs.replace(report, faults=faults + report.faults, versions=report.versions + len(lost))


@get("/store/room", sync_to_thread=True)
def room(core: CoreDependency) -> StoreRoom:
    """Tell how much room the store has: a capture is to know before it begins."""
    used, free = core.catalog.store.space()
    return StoreRoom(used, free)


@get("/store/stats")
async def stats(core: CoreDependency) -> StoreStats:
    """Tell what everything published weighs, by image and by version."""
    return await core.work.keep_up(_measure, core)


def _measure(core: Core) -> StoreStats:
    measured = core.catalog.store.stats()
    lost = without_record(core.database, core.catalog.store)
    unread = tuple(f"{image}:{number}: {NO_RECORD}" for image, number in lost)
    return msgspec.structs.replace(measured, unread=measured.unread + unread)


@post("/store/gc", status_code=_OK)
async def gc(
    core: CoreDependency, request: AnyRequest, grace_s: FromQuery[float] = GRACE_S, dry_run: FromQuery[bool] = False
) -> Collected:
    """Remove what no published version needs; maps that live attempts were told are kept."""
    if not 0 <= grace_s < float("inf"):
        raise InvalidError(f"grace_s: {grace_s} is not a number of seconds from 0 on")
    return await core.work.keep_up(_collect, core, request, grace_s, is_dry=dry_run)


def _collect(core: Core, request: AnyRequest, grace_s: float, *, is_dry: bool) -> Collected:
    with core.database.read() as connection:
        keep = told_maps(connection)
    require_records(core.database, core.catalog.store)
    collected = core.catalog.store.gc(grace_s, keep_maps=keep, dry_run=is_dry)
    if not is_dry:
        with core.database.write() as connection:
            detail = msgspec.to_builtins(collected)
            events.record(connection, who(core, request), "store", "collected", grace_s=grace_s, **detail)
    return collected


@post("/store/repack", status_code=_OK)
async def repack(
    core: CoreDependency, request: AnyRequest, below: FromQuery[float] = 0.5, dry_run: FromQuery[bool] = False
) -> Repacked:
    """Write packs of which less than `below` (a share of 1) is used anew; a gc then frees the old ones."""
    return await core.work.keep_up(_repack, core, request, below, is_dry=dry_run)


def _repack(core: Core, request: AnyRequest, below: float, *, is_dry: bool) -> Repacked:
    repacked = core.catalog.store.repack_sparse(below, dry_run=is_dry)
    if not is_dry:
        with core.database.write() as connection:
            detail = msgspec.to_builtins(repacked)
            events.record(connection, who(core, request), "store", "repacked", below=below, **detail)
    return repacked


def capture_handlers() -> list[Any]:
    """Return the handlers of images that a capture needs."""
    return [image_show, known, pack_put, segment_put, publish, room, *options_handlers()]


def told_maps(connection: Connection) -> set[bytes]:
    """Return the maps that live attempts were told: a gc keeps what they name."""
    return {bytes.fromhex(task.version.pack_map) for task in rows.told_tasks(connection)}


def image_handlers() -> list[Any]:
    """Return the handlers of images and of the store."""
    return [*capture_handlers(), image_list, version_remove, check, stats, gc, repack, packs_missing]


def _view(core: Core, row: Row[tuple[Any, ...]], channel_names: Sequence[str]) -> ImageView:
    try:
        detail = msgspec.to_builtins(core.catalog.store.version(row.image, row.number))
    except (ClonerError, OSError) as fault:  # one that is damaged must not hide the others
        detail = {"fault": str(fault)}
    return ImageView(
        image=row.image,
        number=row.number,
        digest=row.digest,
        published_s=row.published_s,
        author=row.author,
        detail=detail,
        channels=tuple(channel_names),
    )
