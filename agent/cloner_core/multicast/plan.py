"""Which parcels are still to be sent, as ranges in the order of sending."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

_RANGES_MOST = 1024


class Plan:
    """Sends what it began with, then what was wanted again; no parcel is in it twice."""

    def __init__(self, parcels: int, first: range) -> None:
        self._parcels = parcels
        self._ranges: deque[tuple[int, int]] = deque()  # first, end
        if first:
            self._ranges.append((first.start, first.stop))

    @property
    def left(self) -> int:
        """How many parcels are still to be begun."""
        return sum(end - first for first, end in self._ranges)

    def has(self, parcel: int) -> bool:
        """Return whether the parcel is still to be begun."""
        return any(first <= parcel < end for first, end in self._ranges)

    def take(self) -> int:
        """Remove and return the next parcel."""
        first, end = self._ranges.popleft()
        if first + 1 < end:
            self._ranges.appendleft((first + 1, end))
        return first

    def want(self, first: int, count: int, is_known: Callable[[int], bool]) -> int:
        """Add parcels at the end unless they are in it, or `is_known`; return how many were added."""
        added = 0
        pieces = [(min(first, self._parcels), min(first + count, self._parcels))]
        for start, end in self._ranges:
            pieces = [
                piece
                for low, high in pieces
                for piece in ((low, min(high, start)), (max(low, end), high))
                if piece[0] < piece[1]
            ]
        for low, high in pieces:
            at = low
            for parcel in range(low, high):
                if is_known(parcel):
                    added += self._append(at, parcel)
                    at = parcel + 1
            added += self._append(at, high)
        return added

    def _append(self, first: int, end: int) -> int:
        if first >= end or len(self._ranges) >= _RANGES_MOST:
            return 0
        joined = self._ranges.pop()[0] if self._ranges and self._ranges[-1][1] == first else first
        self._ranges.append((joined, end))
        return end - first

    def ranges(self, most: int) -> tuple[tuple[int, int], ...]:
        """Return (first, count) of up to `most` ranges, the next to be sent first."""
        return tuple((first, end - first) for first, end in list(self._ranges)[:most])
