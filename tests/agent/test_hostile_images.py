"""Images made to harm write nothing outside of their target, and no memory but what a restore takes anyway."""

from __future__ import annotations

from pathlib import Path

import pytest

from soak.laws import hostile_images
from soak.laws.hostile_images import ATTACKS, look

pytestmark = pytest.mark.root  # restoring gives files away


def test_no_hostile_image_reaches_out_of_its_target(tmp_path: Path) -> None:
    """At length: `./run soak hostile-images`."""
    with hostile_images.LAW.open(tmp_path) as case:
        tried = [case(seed) for seed in range(2 * len(ATTACKS))]
    assert {figures["attack"] for figures in tried} == set(ATTACKS)


@pytest.mark.parametrize("name", ["victim", "way/new", "sub/../new"])
def test_the_law_sees_a_write_beside_the_target(tmp_path: Path, name: str) -> None:
    outside, target = tmp_path / "outside", tmp_path / "target"
    for path in (outside / "way", outside / "sub", target):
        path.mkdir(parents=True)
    (outside / "victim").write_text("as it was")
    before = look(tmp_path, target)
    (target / "mine").write_text("restored")
    assert look(tmp_path, target) == before
    (outside / name).write_text("changed")
    assert look(tmp_path, target) != before
