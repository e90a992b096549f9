"""The server's clock: goes evenly whatever is done to the machine's, and goes along with a step only when told to.

Deadlines lie in the database as times of day, for they outlive the process. A step of the machine's clock (NTP after a
dead battery, a person, a machine that slept) must neither end every attempt at once nor stretch a token's hour to
years. So time goes on evenly until `advance`, and whoever calls that moves the deadlines by as much
(`cloner_server.tasks.timeshift`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class SteadyClock:
    """Seconds since 1970; safe for several threads."""

    wall: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic  # stands while the machine sleeps, when no agent could call either
    _offset_s: float = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Begin with what the machine's clock shows."""
        self._offset_s = self.wall() - self.steady()

    def __call__(self) -> float:
        """Return the time."""
        return self.steady() + self._offset_s

    def step_s(self) -> float:
        """Return how far the machine's clock was put forward (or back: negative) since the last `advance`."""
        return self.wall() - self()

    def advance(self, step_s: float) -> None:
        """Go by the machine's clock from now on: `step_s` is what `step_s()` returned."""
        with self._lock:
            self._offset_s += step_s
