"""Works on many disks at once, a thread each, while the one thread that may talk to the server shows how far they are.

A failure of one disk does not stop the others: a person shall know of each what became of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from cloner_agent.failures import StageError
from cloner_core.messages import Cause

T = TypeVar("T")
_SHOW_EVERY_S = 0.5
_MOST_AT_ONCE = 256


class Progress:
    """How far each disk is, in bytes; also the way to stop all of them."""

    def __init__(self, total_bytes: Sequence[int]) -> None:
        """Begin at nothing."""
        self._totals = list(total_bytes)
        self._done = [0] * len(self._totals)
        self._is_stopped = threading.Event()

    def add(self, index: int, count: int) -> None:
        """Say that disk `index` came on by `count` bytes; raises StageError (ABORTED) when all are to stop."""
        self.set(index, self._done[index] + count)

    def set(self, index: int, done: float) -> None:
        """Say that disk `index` is so far, in bytes; raises as `add`."""
        self._done[index] = min(int(done), self._totals[index])
        if self._is_stopped.is_set():
            raise StageError(Cause.ABORTED, "stopped because the task was to end")

    def stop(self) -> None:
        """Have every disk stop at its next word."""
        self._is_stopped.set()

    @property
    def done_bytes(self) -> int:
        """Of all disks."""
        return sum(self._done)

    @property
    def total_bytes(self) -> int:
        """Of all disks."""
        return sum(self._totals)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What became of each disk, in the order given: a value or an exception."""

    values: dict[int, T] = field(default_factory=dict)
    errors: dict[int, BaseException] = field(default_factory=dict)


def work(count: int, task: Callable[[int], T], progress: Progress, show: Callable[[int, int], None]) -> Outcome[T]:
    """Run `task` for 0 … `count`-1 at once; `show` is given bytes done and in all, in this thread.

    What `show` raises stops all of them and is raised when the last has stopped.
    """
    outcome: Outcome[T] = Outcome()
    with ThreadPoolExecutor(max_workers=min(count, _MOST_AT_ONCE), thread_name_prefix="erase") as pool:
        futures = [pool.submit(task, index) for index in range(count)]
        try:
            while wait(futures, timeout=_SHOW_EVERY_S).not_done:
                show(progress.done_bytes, progress.total_bytes)
        except BaseException:
            progress.stop()
            raise
    for index, future in enumerate(futures):
        if (error := future.exception()) is not None:
            outcome.errors[index] = error
        else:
            outcome.values[index] = future.result()
    return outcome
