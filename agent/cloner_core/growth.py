"""How long a disk lasts: days until it is full, from what it has grown. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloner_core.messages import Strict

DAY_S = 86400.0
WINDOW_DAYS = 30
LEAST_DAYS = 7
"""From less history nothing is foretold: one capture would be taken for a habit."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What was used of a disk at one time."""

    time_s: float
    used_bytes: int


class Growth(Strict, frozen=True):
    """What a disk has grown, and when it is full if it goes on so; with the figures that is from."""

    room_bytes: int  # that may still be written
    days_until_full: float | None  # None: `why` says why that is not known
    why: str = ""
    from_s: float | None = None  # when the first sample was taken that it is from; None: there is none
    to_s: float = 0.0
    grown_bytes: int = 0  # between the two; below 0 when it shrank


def foresee(samples: Sequence[Sample], now: Sample, room_bytes: int) -> Growth:
    """Return when `room_bytes` are used up, by the growth from the oldest sample of the last 30 days until `now`."""
    since_s = now.time_s - WINDOW_DAYS * DAY_S
    seen = [one for one in samples if since_s <= one.time_s <= now.time_s]  # not of a clock that was ahead
    if not seen:
        return Growth(room_bytes, None, "not known: no earlier size was noted", None, now.time_s)
    first = min(seen, key=lambda one: one.time_s)
    days, grown = (now.time_s - first.time_s) / DAY_S, now.used_bytes - first.used_bytes
    why, left = "", None
    if days < LEAST_DAYS:
        why = f"not known: sizes were noted for {days:.1f} days, {LEAST_DAYS} are wanted"
    elif grown <= 0:
        why = f"never, as it is: it has not grown in {days:.0f} days"
    else:
        left = room_bytes / (grown / days)
    return Growth(room_bytes, left, why, first.time_s, now.time_s, grown)
