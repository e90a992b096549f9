"""What waits in memory to be written: taken out before a transaction, given back when that fails."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")


def take_all(queue: deque[_T]) -> list[_T]:
    """Take all of a queue that others put into meanwhile."""
    taken = []
    while queue:
        taken.append(queue.popleft())
    return taken


def give_back(queue: deque[_T], taken: Sequence[_T]) -> None:
    """Put back what was taken, before what came since; where there is no room for all, the oldest goes."""
    room = len(taken) if queue.maxlen is None else queue.maxlen - len(queue)
    queue.extendleft(reversed(taken[max(0, len(taken) - room) :]))
