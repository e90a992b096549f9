"""Hellos, beats, thieves, silence and admins in any order, some at once: one live attempt, alarms, no secret astray."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serverbench.scene import make_template, open_scene
from soak.law import Case, Figures, Law
from soak.laws.race import Race

_STEPS = 40


@contextmanager
def open_claim_race(work: Path) -> Iterator[Case]:
    """Every case has a server of its own, over a copy of one state."""
    make_template(work / "template")

    def case(seed: int) -> Figures:
        with tempfile.TemporaryDirectory(dir=work) as directory:
            state = Path(directory) / "state"
            shutil.copytree(work / "template", state)
            scene = open_scene(state)
            try:
                race = Race(scene, seed)
                for _ in range(_STEPS):
                    race.step()
                return race.seen
            finally:
                scene.core.database.close()

    yield case


LAW = Law(
    "claim-race",
    "never two live attempts of a task, every foreign claim alarms, no secret leaves for other hardware",
    500,
    open_claim_race,
)
