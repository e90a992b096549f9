"""Where a capture at rest puts its parts: the server, by the requests of its attempt.

Every request shows the credential and a proof made with the key of the attempt; the server takes the version of no
other image by it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import msgspec

from cloner_agent.client import Credentials, Endpoint, Transport
from cloner_agent.failures import StageError
from cloner_core.admin.images import WantedPacks
from cloner_core.decoding import UNREADABLE
from cloner_core.image.pack import Pack
from cloner_core.image.tree import SegmentDelta, SegmentRef
from cloner_core.image.version import Base, Draft, VersionRecord
from cloner_core.messages import Cause

log = logging.getLogger(__name__)

_BASE_BYTES = 1 << 30
_PUBLISH_S = 1800.0  # the server decodes and hashes every pack that is new


class HttpsSink:
    """A `CaptureSink` over HTTPS; each thread has a connection of its own."""

    def __init__(
        self,
        endpoint: Endpoint,
        credentials: Credentials,
        attempt: str,
        connect: Callable[[Endpoint], Transport] = Transport,
    ) -> None:
        """Take where the server is, and the path of the attempt there."""
        self._endpoint = endpoint
        self._credentials = credentials
        self._attempt = attempt
        self._connect = connect
        self._local = threading.local()

    def base(self, image: str) -> Base | None:
        """Return what the server has of the image already."""
        content = self._request("GET", f"base/{image}", limit_bytes=_BASE_BYTES)
        try:
            return msgspec.msgpack.decode(content, type=Base | None)
        except UNREADABLE as fault:
            raise StageError(Cause.PROTOCOL, f"the server's list of known chunks is not understood: {fault}") from fault

    def put_pack(self, pack: Pack) -> None:
        """Send a pack, unless a former attempt has sent it; it is durable when this returns."""
        wanted = WantedPacks({pack.digest.hex(): len(pack.stored)})
        missing = msgspec.json.decode(self._request("POST", "missing", msgspec.json.encode(wanted)), type=list[str])
        if missing:
            self._request("PUT", f"packs/{pack.digest.hex()}", pack.stored)

    def put_segment(self, ref: SegmentRef, stored: bytes, _delta: SegmentDelta | None = None) -> None:
        """Send a segment of the tree; there is no former tree here that it could be told by."""
        self._request("PUT", f"segments/{ref.digest.hex()}/{ref.raw_size}", stored)

    def publish(self, draft: Draft) -> VersionRecord:
        """Have the version appear, whole, and the task end as done with it."""
        answer = self._request("POST", "publish", msgspec.msgpack.encode(draft), read_s=_PUBLISH_S)
        try:
            return msgspec.json.decode(answer, type=VersionRecord)
        except UNREADABLE as fault:
            raise StageError(Cause.PROTOCOL, f"the server's version record is not understood: {fault}") from fault

    def _request(
        self, method: str, name: str, body: bytes = b"", *, limit_bytes: int = 4 << 20, read_s: float = 120.0
    ) -> bytes:
        transport: Transport | None = getattr(self._local, "transport", None)
        if transport is None:
            transport = self._local.transport = self._connect(self._endpoint)
        path = f"{self._attempt}/{name}"
        return transport.request(
            method, path, body, credentials=self._credentials, limit_bytes=limit_bytes, read_s=read_s
        )
