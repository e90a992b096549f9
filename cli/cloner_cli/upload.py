"""Where a capture on this machine puts its parts: the server, over its API."""

from __future__ import annotations

from contextlib import suppress

import msgspec

from cloner_cli.api import Api
from cloner_cli.pacing import Pacer
from cloner_core.decoding import UNREADABLE
from cloner_core.errors import ClonerError, IntegrityError, NotFoundError
from cloner_core.image.pack import Pack
from cloner_core.image.tree import SegmentDelta, SegmentRef
from cloner_core.image.version import Base, Draft, VersionRecord

_MESSAGEPACK = "application/vnd.msgpack"


class ServerSink:
    """A `CaptureSink` over HTTP; called from several threads at once. Parts already there are sent to no effect."""

    def __init__(self, api: Api, pacer: Pacer | None = None) -> None:
        """Take the server, and what holds packs back."""
        self._api = api
        self._pacer = pacer

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
        """Have the version appear, whole."""
        return self._api.post_bytes("/v1/publish", msgspec.msgpack.encode(draft), VersionRecord, _MESSAGEPACK)


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
        from cloner_core.image.digest import version_digest

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
