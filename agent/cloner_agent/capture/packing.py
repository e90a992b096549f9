"""Chunks to packs in the sink, compressed by threads: zstd and BLAKE3 release the GIL while the walker reads."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from cloner_agent.capture.sink import CaptureSink
from cloner_core.image.compression import compress
from cloner_core.image.digest import digest
from cloner_core.image.pack import ENTRY, PackWriter, RawPack, compress_pack
from cloner_core.image.tree import Segment
from cloner_core.image.version import Base, PackOffer

_WAITING = 2  # packs beyond the one each thread works on: bounds memory


class PackStream:
    """Takes chunks, stores each content once, and remembers which packs it made."""

    def __init__(self, sink: CaptureSink, base: Base | None, *, threads: int | None = None) -> None:
        """Take the sink and the packs that are in it already."""
        self._sink = sink
        self._writer = PackWriter()
        self._known: set[bytes] = set()
        for offer in base.packs if base else ():
            self._known.update(name for name, _, _ in ENTRY.iter_unpack(offer.entries))
        count = threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="pack")
        self._limit = count + _WAITING
        self._running: deque[Future[PackOffer | None]] = deque()
        self._offers: list[PackOffer] = []
        self.stored_bytes = 0  # of the packs made

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def add(self, chunk: bytes) -> bytes:
        """Take a chunk and return its digest; it is stored unless its content is known."""
        name = digest(chunk)
        if name not in self._known:
            self._known.add(name)
            closed = self._writer.add(name, chunk)
            if closed is not None:
                self._run(self._pool.submit(self._store_pack, closed))
        return name

    def add_segment(self, segment: Segment) -> None:
        """Store a segment of the tree."""
        self._run(self._pool.submit(self._store_segment, segment))

    def finish(self) -> tuple[PackOffer, ...]:
        """Wait until everything is in the sink and return the packs made; raises what a thread raised."""
        closed = self._writer.close()
        if closed is not None:
            self._run(self._pool.submit(self._store_pack, closed))
        while self._running:
            self._wait()
        return tuple(self._offers)

    def _run(self, future: Future[PackOffer | None]) -> None:
        self._running.append(future)
        while len(self._running) > self._limit or (self._running and self._running[0].done()):
            self._wait()

    def _wait(self) -> None:
        offer = self._running.popleft().result()
        if offer is not None:
            self._offers.append(offer)
            self.stored_bytes += offer.stored_size

    def _store_pack(self, raw: RawPack) -> PackOffer:
        pack = compress_pack(raw)
        self._sink.put_pack(pack)
        return PackOffer(pack.digest, len(pack.stored), pack.raw_size, pack.entries)

    def _store_segment(self, segment: Segment) -> None:
        self._sink.put_segment(segment.ref, compress(segment.raw))
