"""What a server answered is kept, wherever it is killed and whenever its disk fills.

At length: `./run soak server-kill`, `./run soak server-full`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from soak.book import Entry
from soak.law import Figures
from soak.laws import server_full, server_kill

pytestmark = pytest.mark.root  # starts processes, mounts small filesystems


def entries(tried: list[Figures]) -> list[Entry]:
    return [Entry(seed, 0.0, figures) for seed, figures in enumerate(tried)]


def test_a_server_killed_anywhere_has_kept_what_it_answered(tmp_path: Path) -> None:
    with server_kill.LAW.open(tmp_path) as case:
        tried = [case(seed) for seed in range(1, 9)]
    assert {figures["killed"] for figures in tried} == {"at a call", "by the clock"}
    # Eight are too few for the shares that the soak wants: where the call of a seed falls moves with every change.
    assert sum(figures["in"] != "between two" for figures in tried) >= 2
    assert sum(float(figures["answered"]) > 0 for figures in tried) >= 4
    assert max(float(figures["answered"]) for figures in tried) > 5
    assert len({figures["in"] for figures in tried}) > 2


def test_a_server_whose_disk_fills_has_kept_what_it_answered(tmp_path: Path) -> None:
    with server_full.LAW.open(tmp_path) as case:
        tried = [case(seed) for seed in range(1, 6)]
    assert server_full.LAW.enough(entries(tried)) == ""
    assert sum(float(figures.get("refused", 0)) for figures in tried) > 10
    assert sum(float(figures.get("done, full", 0)) for figures in tried) > 5
