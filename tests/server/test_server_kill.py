"""What a server answered is kept, wherever it is killed. At length: `./run soak server-kill`."""

from __future__ import annotations

from pathlib import Path

import pytest

from soak.laws import server_kill

pytestmark = pytest.mark.root  # starts processes


def test_a_server_killed_anywhere_has_kept_what_it_answered(tmp_path: Path) -> None:
    with server_kill.LAW.open(tmp_path) as case:
        tried = [case(seed) for seed in range(1, 13)]
    assert {"at a call", "by the clock"} <= {figures["killed"] for figures in tried}
    assert max(float(figures["answered"]) for figures in tried) > 5
    assert len({figures["in"] for figures in tried}) > 2
