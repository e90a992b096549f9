"""Lists of parcels for agents and senders: each is made once, however many ask while it is made."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import msgspec

from cloner_core.seats import ParcelList
from cloner_server.multicast.parcels import parcel_list
from cloner_server.store.protocol import Store

_KEPT = 4  # lists: of 20 GiB one has 400 kB
_AT_ONCE = 2  # every pack is read


@dataclass(frozen=True, slots=True)
class Listed:
    """A list, and the same as it goes over the wire."""

    parcels: ParcelList
    encoded: bytes


class ParcelShelf:
    """Makes lists in threads of its own; safe to use from several threads."""

    def __init__(self, store: Store) -> None:
        """Read the packs of `store`."""
        self._store = store
        self._pool = ThreadPoolExecutor(_AT_ONCE, "parcel-lists")
        self._lock = threading.Lock()
        self._made: OrderedDict[bytes, Future[Listed]] = OrderedDict()
        self._progress: dict[bytes, tuple[int, int]] = {}
        self._is_closed = False

    def listed(self, pack_map: bytes) -> Future[Listed]:
        """Return the list of the map of this digest, or what becomes of it; one that failed is made again."""
        with self._lock:
            found = self._made.get(pack_map)
            if found is None or (found.done() and found.exception() is not None):
                found = self._made[pack_map] = self._pool.submit(self._make, pack_map)
            self._made.move_to_end(pack_map)
            for name in [name for name, one in self._made.items() if one.done()][:-_KEPT]:
                del self._made[name]
            return found

    def progress(self, pack_map: bytes) -> str:
        """Return how far a list is that is being made, for people."""
        done, of = self._progress.get(pack_map, (0, 0))
        return f"the packs are read once to name what is sent: {done} of {of}" if of else "the packs are read"

    def close(self) -> None:
        """Make none any more."""
        self._is_closed = True
        self._pool.shutdown(cancel_futures=True)

    def _make(self, pack_map: bytes) -> Listed:
        def watch(done: int, of: int) -> None:
            if self._is_closed:
                raise InterruptedError("the server stops")
            self._progress[pack_map] = done, of

        try:
            parcels = parcel_list(self._store, pack_map, watch)
            return Listed(parcels, msgspec.json.encode(parcels))
        finally:
            self._progress.pop(pack_map, None)
