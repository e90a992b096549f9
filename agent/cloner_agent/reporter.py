"""Progress of a deploy: one place where stages say where they are, and where the server's orders reach them.

Must not know what the stages do.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Literal

from cloner_agent.console import Console
from cloner_agent.failures import AbortError, StageError
from cloner_core.describing import sendable
from cloner_core.messages import BeatReply, Cause, Progress, Stage, StageTime

log = logging.getLogger(__name__)

_WINDOW_S = 5.0


class Reporter:
    """Tells console and heartbeat about stages; raises StageError where the server wants an end."""

    def __init__(
        self,
        console: Console,
        *,
        show: Callable[[Progress], None] = lambda _: None,
        order: Callable[[], BeatReply] = BeatReply,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = console
        self.notes: list[str] = []
        self._show = show
        self._order = order
        self._clock = clock
        self._times: dict[Stage, float] = {}
        self._started = clock()
        self._stage = Stage.HELLO
        self._is_committed = False
        self._samples: deque[tuple[float, int]] = deque()
        self._times[self._stage] = 0.0
        console.stage(self._stage)

    @property
    def stage(self) -> Stage:
        """The stage that runs now."""
        return self._stage

    def follow(self, show: Callable[[Progress], None], order: Callable[[], BeatReply]) -> None:
        """Connect to a heartbeat that was started since."""
        self._show = show
        self._order = order

    def enter(self, stage: Stage) -> None:
        """Begin `stage`, unless it is the one that runs."""
        if stage is self._stage:
            return
        self._close()
        self._stage = stage
        self._samples.clear()
        # First: a process that dies right after its marker is to be reported with this stage.
        self._show(Progress(stage=stage))
        self.console.stage(stage)

    def tick(self, done: int, total: int, unit: Literal["bytes", "steps"] = "steps", text: str = "") -> None:
        """Say how far the stage is.

        Raises StageError when the server wants an end and the commit was not granted yet.
        """
        now = self._clock()
        self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[0][0] > _WINDOW_S:
            self._samples.popleft()
        first_time, first_done = self._samples[0]
        rate = (done - first_done) / (now - first_time) if now > first_time else 0.0
        progress = Progress(
            stage=self._stage, done=done, total=total, unit=unit, rate_per_s=max(0.0, rate), text=sendable(text)
        )
        self._show(progress)
        self.console.progress(progress)
        self.check()

    def check(self) -> None:
        """Raise StageError when the server wants an end; after the commit nothing stops the last steps."""
        if self._is_committed:
            return
        order = self._order()
        if order.order in ("abort", "retry"):  # `retry`: it was let go, and another task or try waits for the machine
            raise AbortError(order.reason)
        if order.order == "hold":
            raise StageError(Cause.REFUSED, order.reason or "the server ended this attempt")

    def order(self) -> BeatReply:
        """Return what the server wants now."""
        return self._order()

    def commit(self) -> None:
        """From now on finishing is safer than stopping."""
        self._is_committed = True

    def note(self, text: str) -> None:
        """Keep a remark for the receipt."""
        log.warning("note: %s", text)
        self.notes.append(sendable(text))

    def times(self) -> tuple[StageTime, ...]:
        """Return the seconds of each stage so far, in order."""
        self._close()
        return tuple(StageTime(stage=stage, seconds=round(seconds, 3)) for stage, seconds in self._times.items())

    def _close(self) -> None:
        now = self._clock()
        self._times[self._stage] = self._times.get(self._stage, 0.0) + now - self._started
        self._started = now
