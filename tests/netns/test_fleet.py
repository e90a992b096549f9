"""Many nodes at once against one real server; `./run soak fleet` is the same at length."""

from __future__ import annotations

from pathlib import Path

import pytest

from soak.laws.fleet import FleetCase

pytestmark = [pytest.mark.root, pytest.mark.slow]


def test_of_many_cloned_at_once_the_ill_are_named_and_one_retry_mends_them(tmp_path: Path) -> None:
    fleet = FleetCase(tmp_path)
    seeds = range(5, 5 + 24)
    fleet.gather(seeds)
    assert fleet.broken == ""
    figures = [fleet(seed) for seed in seeds]
    assert len({figure["illness"] for figure in figures}) == 7
