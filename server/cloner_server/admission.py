"""How many packs are on their way to nodes at once. The rest wait in the order they came, holding no bytes.

Four hundred nodes that begin together would else have a piece of a pack each in the server's memory, and each would
crawl. A node that hangs in the middle of a pack keeps its place for a moment and no longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PLACES = 16  # 1 Gbit/s carries a pack in 12 ms; with more than a few at once a link is full
LEASE_S = 2.0


class Admission:
    """The places; for one event loop."""

    def __init__(self, places: int = PLACES, lease_s: float = LEASE_S) -> None:
        """Take how many there are, and how long one is kept for whoever does not get on."""
        self._free = asyncio.Semaphore(places)
        self.lease_s = lease_s

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a place, first come, first served; it is free again at the end, or when the lease ends before."""
        await self._free.acquire()
        is_held = True

        def give_up() -> None:
            nonlocal is_held
            if is_held:
                is_held = False
                self._free.release()

        lease = asyncio.get_running_loop().call_later(self.lease_s, give_up)
        try:
            yield
        finally:
            lease.cancel()
            give_up()
