"""The boot code for BIOS under power cuts, and the proof that the rig would find a flush that is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from soak.law import LawBrokenError
from soak.laws.power_cut_bios import Scene, open_scene

pytestmark = pytest.mark.root

CASES = 30


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with open_scene(tmp_path) as made:
        yield made


def test_cut_anywhere_bios_passes_on_or_starts_a_whole_core(scene: Scene) -> None:
    """At length: `./run soak power-cut-bios`."""
    tried = [scene.case(seed) for seed in range(CASES)]
    assert {figures["the disk"] for figures in tried} == {"passes on", "boots"}


def test_a_disk_that_lies_about_flushes_is_found_out(scene: Scene) -> None:
    broken = []
    for seed in range(CASES):
        try:
            scene.case(seed, is_lying=True)
        except LawBrokenError as error:
            broken.append(error.message)
    assert any("before the core is whole" in one for one in broken)
