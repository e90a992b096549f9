"""Days until full, from the growth of the last 30 days; not known is said, with what there is."""

from __future__ import annotations

import pytest

from cloner_core.growth import DAY_S, Growth, Sample, foresee

NOW_S = 1_800_000_000.0
GIB = 1 << 30


def foretold(room_bytes: int, *days_ago: tuple[float, int], used: int = 100 * GIB) -> Growth:
    samples = [Sample(NOW_S - days * DAY_S, size) for days, size in days_ago]
    return foresee(samples, Sample(NOW_S, used), room_bytes)


def test_what_grows_is_full_when_the_room_is_used_up() -> None:
    growth = foretold(50 * GIB, (20, 80 * GIB), (10, 95 * GIB))
    assert (growth.days_until_full, growth.grown_bytes, growth.from_s) == (50.0, 20 * GIB, NOW_S - 20 * DAY_S)


def test_only_the_last_30_days_count() -> None:
    assert foretold(50 * GIB, (200, 0), (31, 0), (25, 50 * GIB)).days_until_full == 25.0


UNKNOWN = {
    "nothing was noted": ((), "no earlier size"),
    "too little history": (((6.9, 50 * GIB),), "6.9 days, 7 are wanted"),
    "only older history": (((40, 50 * GIB),), "no earlier size"),
    "a clock that was ahead": (((-3, 50 * GIB),), "no earlier size"),
    "it shrank": (((20, 120 * GIB),), "has not grown in 20 days"),
    "it stands": (((20, 100 * GIB),), "has not grown in 20 days"),
}


@pytest.mark.parametrize(("samples", "why"), UNKNOWN.values(), ids=list(UNKNOWN))
def test_what_cannot_be_foretold_says_why(samples: tuple[tuple[float, int], ...], why: str) -> None:
    growth = foretold(50 * GIB, *samples)
    assert growth.days_until_full is None
    assert why in growth.why


def test_a_full_disk_is_full_now() -> None:
    assert foretold(0, (10, 0)).days_until_full == 0.0
