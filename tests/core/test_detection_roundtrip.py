"""Detection is the way back: whatever layout a deploy made a machine of, that layout is told of the machine."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from cloner_core.detection import Excluded, detect
from cloner_core.facts import Facts
from cloner_core.layout import Layout
from cloner_core.plan import Plan
from cloner_core.selectors import select_disks
from cloner_core.sizes import MIB
from core.drawnlayouts import scenes
from core.test_golden_layouts import NAMES
from core.test_golden_layouts import scene as reviewed
from core.worlds import built, told_of, without_measure


@pytest.mark.parametrize("name", NAMES)
def test_every_reviewed_layout_is_detected_once_it_was_made(name: str) -> None:
    facts, layout = reviewed(name)
    plan = built(facts, layout)
    kept = tuple(one.device for one in plan.partitions if one.is_kept)
    detected = detect(told_of(plan, facts), layout.name, Excluded(kept, layout.untouched)).layout
    assert without_measure(detected) == without_measure(layout)
    assert detected.untouched == layout.untouched
    assert {disk.path for disk in select_disks(detected, facts.disks).values()} == {
        disk.disk.path for disk in plan.disks
    }


@given(scenes())
@settings(max_examples=25, deadline=None)
def test_what_was_made_from_a_layout_is_detected_as_that_layout(scene: tuple[Facts, Layout]) -> None:
    facts, layout = scene
    plan = built(facts, layout)
    detected = detect(told_of(plan, facts), layout.name).layout
    assert without_measure(detected) == without_measure(layout)
    again = built(facts, detected)
    assert _sizes(again, plan) == _sizes(plan, plan)
    assert without_measure(detect(told_of(again, facts, is_running=False), layout.name).layout) == without_measure(
        layout
    )


def _sizes(plan: Plan, of: Plan) -> list[int]:
    """Return the sizes of all partitions on disks that `of` fills."""
    full = {one.id for one, disk in zip(plan.disks, of.disks, strict=True) if _is_full(disk)}
    return [one.size_sectors for disk in plan.disks if disk.id in full for one in disk.partitions]


def _is_full(planned: Any) -> bool:
    if not planned.partitions:
        return False
    last = max(one.start_sectors + one.size_sectors for one in planned.partitions)
    left: int = planned.disk.size_bytes - last * planned.disk.sector_bytes
    return left < 3 * MIB
