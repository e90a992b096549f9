"""Which version each credential may have, believed for a moment: a node asks eighty times a second for a pack.

A look at attempt and task in the database costs as much as the TLS of the pack that follows it.
"""

from __future__ import annotations

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

    def version(self, credential: str, digest: str) -> Version | None:
        """Return the version `digest` when this credential was granted it within the last second."""
        kept = self._kept.get(credential)
        if kept is None or self._clock() >= kept[0] or kept[1].digest.hex() != digest:
            return None
        return kept[1]

    def keep(self, credential: str, version: Version, found_at: float) -> None:
        """Believe for a second from `found_at`, taken of the clock before the database was asked."""
        if len(self._kept) >= _KEPT:
            self._kept.clear()
        self._kept[credential] = found_at + BELIEVED_S, version

    def now(self) -> float:
        """Return the time of the clock."""
        return self._clock()
