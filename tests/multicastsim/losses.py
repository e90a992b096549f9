"""Which datagrams are lost: stretches that arrive and stretches that do not, each as long as chance says."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from math import log

_BURST_S = 0.01
"""A burst is over when nothing was sent for so long: what loses datagrams in a row is a queue that is full."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A Gilbert channel; with bursts of one datagram, losses are independent."""

    part: float  # of all datagrams
    burst: float = 1.0  # mean length of a stretch that is lost

    @property
    def between(self) -> float:
        """The mean length of a stretch that arrives."""
        return self.burst * (1 - self.part) / self.part if self.part else 1e18


class Losses:
    """What one receiver loses, datagram by datagram; costs nothing for those that arrive."""

    __slots__ = ("_chance", "_last_s", "_left", "_loses", "_loss")

    def __init__(self, loss: Loss, chance: random.Random) -> None:
        self._loss = loss
        self._chance = chance
        self._loses = False
        self._last_s = 0.0
        self._left = self._draw(loss.between)

    def _draw(self, mean: float) -> int:
        """Return the length of a stretch: geometric, at least 1."""
        if mean <= 1:
            return 1
        if mean > 1e15:
            return 1 << 62
        return 1 + int(log(1 - self._chance.random()) / log(1 - 1 / mean))

    def arrive(self, count: int, now_s: float) -> Iterator[tuple[int, int]]:
        """Give (first, count) of the stretches that arrive of `count` datagrams."""
        if self._loses and now_s - self._last_s > _BURST_S:
            self._loses = False
            self._left = self._draw(self._loss.between)
        self._last_s = now_s
        if not self._loses and self._left > count:
            self._left -= count
            yield 0, count
            return
        at = 0
        while at < count:
            length = min(self._left, count - at)
            if not self._loses and length:
                yield at, length
            at += length
            self._left -= length
            if not self._left:
                self._loses = not self._loses
                self._left = self._draw(self._loss.burst if self._loses else self._loss.between)
