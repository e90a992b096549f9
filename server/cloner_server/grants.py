"""Which version each credential may have, believed for a moment: a node asks eighty times a second for a pack.

A look at attempt and task in the database costs as much as the TLS of the pack that follows it. Requests that come
together share one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from cloner_server.catalog import Version

BELIEVED_S = 1.0  # a credential revoked meanwhile gets no pack that begins later; one on its way was always finished
_KEPT = 4096


class Grants:
    """What was found a moment ago; for one event loop. Refusals are never kept."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Take a clock that only goes forward, in seconds."""
        self._clock = clock
        self._kept: dict[str, tuple[float, Version]] = {}
        self._asked: dict[tuple[str, str], asyncio.Task[Version]] = {}

    async def version(self, credential: str, digest: str, ask: Callable[[], Version]) -> Version:
        """Return the version `digest`, granted to this credential within the last second, or what `ask` says.

        `ask` is called in a thread, once for all who want to know the same; what it raises, this does.
        """
        version = self._believed(credential, digest)
        if version is not None:
            return version
        asked = self._asked.get((credential, digest))
        if asked is None:
            asked = self._asked[credential, digest] = asyncio.create_task(self._ask(credential, digest, ask))
            asked.add_done_callback(_hear)
        return await asyncio.shield(asked)  # who goes away takes the answer from nobody

    async def _ask(self, credential: str, digest: str, ask: Callable[[], Version]) -> Version:
        found_at = self._clock()
        try:
            version = await asyncio.to_thread(ask)
        finally:
            del self._asked[credential, digest]
        self._keep(credential, version, found_at)
        return version

    def _believed(self, credential: str, digest: str) -> Version | None:
        kept = self._kept.get(credential)
        if kept is None or self._clock() >= kept[0] or kept[1].digest.hex() != digest:
            return None
        return kept[1]

    def _keep(self, credential: str, version: Version, found_at: float) -> None:
        """Believe for a second from `found_at`, taken of the clock before the database was asked."""
        if len(self._kept) >= _KEPT:
            self._kept.clear()
        self._kept[credential] = found_at + BELIEVED_S, version


def _hear(asked: asyncio.Task[Version]) -> None:
    """Look at how it ended, as who asked may be gone: asyncio would log a refusal that nobody has heard."""
    if not asked.cancelled():
        asked.exception()
