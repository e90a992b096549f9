"""Chunks to packs in the sink, compressed by threads: zstd and BLAKE3 release the GIL while the walker reads.

Files are read straight into the buffer of the pack they will be in; a chunk that is known is simply not kept. The
buffers are used again and again: fresh memory costs more in page faults than the reading itself.
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from cloner_agent.capture.formertree import FormerTree
from cloner_agent.capture.sink import CaptureSink
from cloner_core.image.compression import Compressor
from cloner_core.image.digest import digest
from cloner_core.image.limits import PACK_RAW_BYTES
from cloner_core.image.pack import ENTRY, Pack
from cloner_core.image.tree import Segment
from cloner_core.image.version import Base, PackOffer

_WAITING = 2  # packs beyond the one each thread works on: bounds memory


class PackStream:
    """Takes chunks, stores each content once, and remembers which packs it made."""

    def __init__(
        self, sink: CaptureSink, base: Base | None, former: FormerTree | None = None, *, threads: int | None = None
    ) -> None:
        """Take the sink, the packs that are in it already, and the tree it has of the last capture."""
        self._sink = sink
        self._former = former or FormerTree()
        self._known: set[bytes] = set()
        for offer in base.packs if base else ():
            self._known.update(name for name, _, _ in ENTRY.iter_unpack(offer.entries))
        count = threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="pack")
        self._compressors = deque(Compressor() for _ in range(count))
        self._limit = count + _WAITING
        self._running: deque[Future[PackOffer | None]] = deque()
        self._free = deque(bytearray(PACK_RAW_BYTES) for _ in range(self._limit + 1))
        self._buffer = self._free.popleft()
        self._view = memoryview(self._buffer)
        self._size = 0
        self._entries = bytearray()
        self._offers: list[PackOffer] = []
        self.stored_bytes = 0  # of the packs made

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def room(self, length: int) -> memoryview:
        """Return memory for a chunk of `length` bytes, 1 byte to 1 MiB; valid until the next call of any method."""
        if self._size + length > PACK_RAW_BYTES:
            self._close()
        return self._view[self._size : self._size + length]

    def keep(self, length: int) -> bytes:
        """Return the digest of the chunk written into the room just asked for; stored unless it is known."""
        end = self._size + length
        name = digest(self._view[self._size : end])
        if name not in self._known:
            self._known.add(name)
            self._entries += ENTRY.pack(name, self._size, length)
            self._size = end
        return name

    def knows(self, name: bytes) -> bool:
        """Tell whether the chunk of this digest need not be kept: it is in the sink, or in a pack of this capture."""
        return name in self._known

    def add_segment(self, segment: Segment) -> None:
        """Store a segment of the tree."""
        self._run(self._pool.submit(self._store_segment, segment))

    def finish(self) -> tuple[PackOffer, ...]:
        """Wait until everything is in the sink and return the packs made; raises what a thread raised."""
        self._close()
        while self._running:
            self._wait()
        return tuple(self._offers)

    def _close(self) -> None:
        if not self._size:
            return
        self._run(self._pool.submit(self._store_pack, self._buffer, self._size, bytes(self._entries)))
        while not self._free:
            self._wait()
        self._buffer = self._free.popleft()
        self._view = memoryview(self._buffer)
        self._size, self._entries = 0, bytearray()

    def _run(self, future: Future[PackOffer | None]) -> None:
        self._running.append(future)
        while len(self._running) > self._limit or (self._running and self._running[0].done()):
            self._wait()

    def _wait(self) -> None:
        offer = self._running.popleft().result()
        if offer is not None:
            self._offers.append(offer)
            self.stored_bytes += offer.stored_size

    def _store_pack(self, buffer: bytearray, size: int, entries: bytes) -> PackOffer:
        compressor = self._compressors.pop()
        stored = compressor.compress(memoryview(buffer)[:size])
        self._compressors.append(compressor)
        self._free.append(buffer)
        name = digest(stored)
        self._sink.put_pack(Pack(name, stored, size, entries))
        return PackOffer(name, len(stored), size, entries)

    def _store_segment(self, segment: Segment) -> None:
        compressor = self._compressors.pop()
        stored = compressor.compress(segment.raw)
        self._compressors.append(compressor)
        self._sink.put_segment(segment.ref, stored, self._former.delta(segment))
        self._former.note(segment, stored)
