"""A power cut in the middle of a deploy, on a disk that loses what was not flushed, and what becomes of the node."""

from __future__ import annotations

from pathlib import Path

import pytest

from soak.laws import power_cut

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1500)]

SEED = 284  # a blank disk, in the middle of the restore


def test_a_node_whose_power_is_cut_comes_to_a_whole_confirmed_clone_by_itself(tmp_path: Path) -> None:
    """At length: `./run soak power-cut`."""
    with power_cut.LAW.open(tmp_path) as case:
        figures = case(SEED)
    print(figures)
    assert (figures["begins"], figures["chosen"]) == ("blank", "restore")
    assert figures["state at cut"] == "running"
    assert figures["attempts after"] == 1
