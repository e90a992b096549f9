"""Virtual time: what is to happen, in its order."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count


class Events:
    """Runs actions at their time; those of the same time in the order they were planned."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()

    def at(self, when_s: float, action: Callable[[], None]) -> None:
        """Have `action` done at `when_s`, now when that is past."""
        heapq.heappush(self._heap, (max(when_s, self.now_s), next(self._number), action))

    def step(self) -> bool:
        """Do the next action; return whether there was one."""
        if not self._heap:
            return False
        self.now_s, _, action = heapq.heappop(self._heap)
        action()
        return True
