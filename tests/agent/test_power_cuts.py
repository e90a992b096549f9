"""The agent's own code under power cuts, and the proof that the rig would find a flush that is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cloner_agent.host import ToolError
from soak.law import Figures, LawBrokenError
from soak.laws.power_cut_apply import MACHINE, Scene, open_scene

pytestmark = pytest.mark.root

RECORDED = ("SAID receipt", 0.0)
CUTS = 10
LOST = r"the ESP of the clone|on the ESP|differs|e2fsck|'mount|Bad message|needs cleaning|Input/output"
FORMER = 5  # a seed that begins with an old system


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with open_scene(tmp_path) as made:
        yield made


def test_cut_anywhere_nothing_half_boots_and_the_next_attempt_is_whole(scene: Scene) -> None:
    """At length: `./run soak power-cut-apply`."""
    tried = [scene.case(seed) for seed in range(1, 7)]
    assert {figures["begins"] for figures in tried} == {"blank", "old"}
    assert sum(float(figures["unwritten bytes"]) for figures in tried) > 0
    assert sum(float(figures["ESPs judged after cuts"]) for figures in tried) > 0


def test_cut_before_anything_is_written_the_former_system_is_whole(scene: Scene) -> None:
    figures = scene.trial(FORMER, cut_at=("CLONER STAGE guard", 0.0))
    assert (figures["begins"], figures["first cut in"]) == ("old", "guard")
    assert float(figures["ESPs judged after cuts"]) > 0


def test_a_former_system_that_is_gone_before_anything_is_written_is_found_out(scene: Scene) -> None:
    scene.former_esp = scene.former_esp | {"EFI/one-more": b""}
    with pytest.raises(LawBrokenError, match="the former system is gone"):
        scene.trial(FORMER, cut_at=("CLONER STAGE guard", 0.0))


def all_of(tried: Iterator[Figures]) -> list[Figures]:
    return list(tried)


def test_what_the_server_has_recorded_is_on_the_disk(scene: Scene) -> None:
    tried = all_of(scene.trial(seed, cut_at=RECORDED) for seed in range(3))
    assert [figures["attempts"] for figures in tried] == [1, 1, 1]


def nothing(*ignored: object) -> None:
    """Stands for a sync that was forgotten."""


NEVER_SYNCED = replace(MACHINE, sync=nothing, sync_filesystem=nothing)


# The commit asks for durability twice: every rename and file of the boot loader is flushed, and sync follows.
@pytest.mark.parametrize("forgotten", ["sync", "fsync"])
def test_the_commit_stands_on_either_of_its_two_ways_to_flush(
    scene: Scene, forgotten: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if forgotten == "fsync":
        monkeypatch.setattr(os, "fsync", nothing)
    machine = NEVER_SYNCED if forgotten == "sync" else MACHINE
    all_of(scene.trial(seed, cut_at=RECORDED, machine=machine) for seed in range(3))


def test_a_commit_that_flushes_in_neither_way_is_found_out(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", nothing)
    with pytest.raises(LawBrokenError, match=r"a file of the image is missing on the ESP"):
        all_of(scene.trial(seed, cut_at=RECORDED, machine=NEVER_SYNCED) for seed in range(CUTS))


def test_a_disk_that_lies_about_flushes_is_found_out(scene: Scene) -> None:
    with pytest.raises((LawBrokenError, ToolError, OSError), match=LOST):
        all_of(scene.trial(seed, cut_at=RECORDED, is_lying=True) for seed in range(CUTS))
