"""Where a capture puts what it made: a store in this process, or a server over HTTPS."""

from __future__ import annotations

from typing import Protocol

from cloner_core.image.pack import Pack
from cloner_core.image.tree import SegmentDelta, SegmentRef
from cloner_core.image.version import Base, Draft, VersionRecord


class CaptureSink(Protocol):
    """Takes packs and segments in any order, then publishes. Called from several threads at once."""

    def base(self, image: str) -> Base | None:
        """Return the packs of the latest version of `image`; their chunks are not sent again."""

    def put_pack(self, pack: Pack) -> None:
        """Keep a pack, durably, before this returns; one that is there already is no error."""

    def put_segment(self, ref: SegmentRef, stored: bytes, delta: SegmentDelta | None = None) -> None:
        """Keep a segment: `stored` is one zstd frame of the raw bytes `ref` names.

        `delta` says the same in fewer bytes where the sink still has what it builds on.
        """

    def publish(self, draft: Draft) -> VersionRecord:
        """Make the version appear, whole; raises IntegrityError when something it needs is not there."""
