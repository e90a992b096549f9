"""Where a capture on this machine puts its parts: the server, over its API."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from cloner_cli.api import Api, segment
from cloner_cli.pacing import Pacer
from cloner_core.admin.images import ImageView
from cloner_core.decoding import UNREADABLE
from cloner_core.errors import ClonerError, IntegrityError, NotFoundError, UnreachableError
from cloner_core.image.digest import version_digest
from cloner_core.image.pack import Pack
from cloner_core.image.tree import SegmentDelta, SegmentRef
from cloner_core.image.version import Base, Draft, VersionRecord

_MESSAGEPACK = "application/vnd.msgpack"
AWAY_S = 120.0
"""For which a version is looked for whose publishing had no answer: a server may restart, or be a newer one then."""
_LOOK_EVERY_S = 2.0


class ServerSink:
    """A `CaptureSink` over HTTP; called from several threads at once. Parts already there are sent to no effect."""

    def __init__(
        self,
        api: Api,
        pacer: Pacer | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take the server, and what holds packs back."""
        self._api = api
        self._pacer = pacer
        self._monotonic = monotonic
        self._sleep = sleep

    def base(self, image: str) -> Base | None:
        """Return what the latest version of `image` is made of; its chunks are not sent again."""
        content = self._api.get_bytes("/v1/chunks/known", {"image": image})
        try:
            return msgspec.msgpack.decode(content, type=Base | None)
        except UNREADABLE as fault:
            raise ClonerError(f"the server's list of known chunks cannot be read: {fault}") from fault

    def put_pack(self, pack: Pack) -> None:
        """Send a pack; it is durable when this returns."""
        self._api.put_bytes(f"/v1/packs/{pack.digest.hex()}", pack.stored, pacer=self._pacer)

    def put_segment(self, ref: SegmentRef, stored: bytes, delta: SegmentDelta | None = None) -> None:
        """Send a segment of the tree, as its difference to others where that is shorter and the server has them."""
        path = f"/v1/segments/{ref.digest.hex()}"
        if delta is not None and len(delta.frame) < len(stored):
            onto = ",".join(f"{name.hex()}:{size}" for name, size in delta.onto)
            # They went with a gc, or the server is older than this program: then as a whole.
            with suppress(NotFoundError, IntegrityError):
                self._api.put_bytes(path, delta.frame, {"raw_size": ref.raw_size, "onto": onto})
                return
        self._api.put_bytes(path, stored, {"raw_size": ref.raw_size})

    def publish(self, draft: Draft) -> VersionRecord:
        """Have the version appear, whole, however long the server checks it.

        An answer that is lost says nothing: the version is looked for before UnreachableError is raised.
        """
        last = draft.after if draft.after is not None else self._newest_number(draft.image)
        content = msgspec.msgpack.encode(draft)
        try:
            return self._api.post_bytes("/v1/publish", content, VersionRecord, _MESSAGEPACK, is_long=True)
        except UnreachableError as lost:
            if (record := self._published(draft, last)) is None:
                told = (
                    f"'cloner image-details --image {draft.image}' says whether the version was published all the same"
                )
                raise UnreachableError(lost.message, hint="; ".join(filter(None, (lost.hint, told)))) from lost
            return record

    def _newest(self, image: str) -> ImageView | None:
        try:
            return self._api.get(f"/v1/images/{segment(image)}", ImageView)
        except NotFoundError:
            return None

    def _newest_number(self, image: str) -> int:
        newest = self._newest(image)
        return newest.number if newest is not None else 0

    def _published(self, draft: Draft, last: int) -> VersionRecord | None:
        """Return the version that `draft` became after the number `last`; None when it does not appear in time."""
        until_s = self._monotonic() + AWAY_S
        while True:
            with suppress(UnreachableError):
                newest = self._newest(draft.image)
                if newest is not None and newest.number > last and _is_of(newest, draft):
                    return msgspec.convert(newest.detail, VersionRecord)
            if self._monotonic() >= until_s:
                return None
            self._sleep(_LOOK_EVERY_S)


def _is_of(view: ImageView, draft: Draft) -> bool:
    said = tuple(view.detail.get(name, "") for name in ("author", "source", "message"))
    return (view.digest, said) == (version_digest(draft.root).hex(), (draft.author, draft.source, draft.message))


class DrySink:
    """Takes everything and keeps nothing: a dry run reads all of the tree, as the real one would."""

    def __init__(self, sink: ServerSink) -> None:
        """Take the sink whose known chunks count as sent."""
        self._sink = sink

    def base(self, image: str) -> Base | None:
        """Return what the server has."""
        return self._sink.base(image)

    def put_pack(self, pack: Pack) -> None:
        """Drop a pack."""

    def put_segment(self, ref: SegmentRef, stored: bytes, delta: SegmentDelta | None = None) -> None:
        """Drop a segment."""

    def publish(self, draft: Draft) -> VersionRecord:
        """Return the record as it might be; its number and signature are the server's to give."""
        return VersionRecord(
            image=draft.image,
            number=1,
            version=version_digest(draft.root).hex(),
            signature="0" * 128,
            public_key="0" * 64,
            inodes=0,
            data_bytes=0,
            published_at="",
            inexact=draft.inexact,
            findings=draft.findings,
        )
