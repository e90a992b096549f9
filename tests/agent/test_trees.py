"""Trees of any shape are captured, changed and restored as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from soak.laws import trees

pytestmark = pytest.mark.root


def test_trees_that_hypothesis_makes_are_restored_as_they_were(tmp_path: Path) -> None:
    """At length: `./run soak trees`."""
    with trees.LAW.open(tmp_path) as case:
        tried = [case(seed) for seed in range(5000, 5008)]
    for name in ("links", "holes", "recalled"):
        assert any(float(figures.get(name, 0)) > 0 for figures in tried), name
