"""Receivers that are ill keep the others from nothing; what time they cost: `./run soak multicast-crowd`."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloner_core.multicast.session import Leaving
from netns.multicast_crowd import Ill, play

pytestmark = [pytest.mark.root, pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(240)]


def test_twenty_receivers_have_everything_though_four_of_them_are_ill(tmp_path: Path) -> None:
    ill = {3: Ill.SLOW, 7: Ill.GREEDY, 11: Ill.VANISHING, 15: Ill.BABBLING}
    outcome = play(tmp_path, 20, 60, ill)
    well = [number for number in range(20) if number not in ill]
    assert [one[:3] for one in outcome.ended] == [(number, list(range(60)), None) for number in well]
    assert all(state.poisoned == 0 for *_, state in outcome.ended)
    assert {number: outcome.left[number] for number in ill} == {
        3: Leaving.SLOW,
        7: Leaving.GREEDY,
        11: Leaving.SILENT,
        15: Leaving.SILENT,
    }
    assert {outcome.left[number] for number in well} == {None}
