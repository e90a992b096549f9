"""Sessions over a wire that loses, doubles and swaps, with kills; at length: `./run soak multicast-net`."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloner_core.multicast.session import Leaving
from cloner_multicast.feed import FeedState
from soak.law import LawBrokenError
from soak.laws.multicast_net import LAW, draw, require_whole


@pytest.mark.root
@pytest.mark.netns
@pytest.mark.timeout(240)
def test_every_live_receiver_ends_with_every_parcel(tmp_path: Path) -> None:
    seeds = (102, 116, 122)
    scenes = [draw(seed) for seed in seeds]
    assert any(scene.killed for scene in scenes)
    assert any(scene.sender_killed_s for scene in scenes)
    with LAW.open(tmp_path) as case:
        told = [case(seed) for seed in seeds]
    for what in ("datagrams lost", "datagrams doubled", "datagrams overtaken", "combinations"):
        assert sum(float(one[what]) for one in told) > 0


@pytest.mark.parametrize(
    ("got", "left", "state", "fault"),
    [
        ([0, 2], Leaving.SLOW, FeedState(), r"lacks \[1\] of 3 parcels"),
        ([0, 1, 2], Leaving.SILENT, FeedState(), "has everything, and left"),
        ([0, 1, 2], None, FeedState(poisoned=1), "1 parcels together wrongly"),
        ([0, 1, 2], None, FeedState(forged=4), "4 forged datagrams"),
    ],
)
def test_the_law_is_broken_by(got: list[int], left: Leaving | None, state: FeedState, fault: str) -> None:
    with pytest.raises(LawBrokenError, match=fault):
        require_whole([(0, [0, 1, 2], None, FeedState()), (1, got, left, state)], 3)
