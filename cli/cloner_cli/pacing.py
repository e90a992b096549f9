"""No more bytes a second than were allowed, whoever sends them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

PIECE_BYTES = 64 << 10


class Pacer:
    """Lets several threads send at one rate together."""

    def __init__(
        self,
        bytes_per_s: int,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take the rate of all together."""
        self._bytes_per_s = bytes_per_s
        self._monotonic, self._sleep = monotonic, sleep
        self._lock = threading.Lock()
        self._free_s = monotonic()

    def pieces(self, content: bytes) -> Iterator[bytes]:
        """Give `content` in pieces, each when its time has come."""
        for start in range(0, len(content), PIECE_BYTES):
            piece = content[start : start + PIECE_BYTES]
            with self._lock:
                turn_s = max(self._free_s, self._monotonic())
                self._free_s = turn_s + len(piece) / self._bytes_per_s
            if (wait_s := turn_s - self._monotonic()) > 0:
                self._sleep(wait_s)
            yield piece
