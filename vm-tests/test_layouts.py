"""The reviewed layouts, made by a node's own kernel and tools: what is there afterwards is what was planned."""

from __future__ import annotations

import pytest

from cloner_initramfs import Cache
from vmlab import Lab
from vmlab.reviewed import faults, make_layouts

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]

# Each finds what the one before has left. All of them: `./run soak layouts`.
SAMPLE = ("raid1-lvm", "btrfs-subvolumes", "kept-scratch")


def test_what_is_made_of_a_layout_is_what_was_planned(lab: Lab, cache: Cache) -> None:
    told = make_layouts(lab, cache, SAMPLE)
    print(told)
    assert set(told) == set(SAMPLE)
    assert {name: faults(outcome, name) for name, outcome in told.items() if faults(outcome, name)} == {}
