"""What is made of a reviewed layout on a real machine is what was planned, whatever was on its disks before.

A case makes one layout over the remains of another, which chance chooses, with the kernel and the tools of a node.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cloner_initramfs import Cache, default_cache
from soak.law import Case, Figures, Law, require
from vmlab import Lab
from vmlab.reviewed import NAMES, faults, make_layouts


@dataclass(frozen=True, slots=True)
class _Scene:
    lab: Lab
    cache: Cache

    def case(self, seed: int) -> Figures:
        """Make the layout that the seed counts to, after another one."""
        name = NAMES[seed % len(NAMES)]
        before = random.Random(seed).choice([one for one in NAMES if one != name])
        told = make_layouts(self.lab, self.cache, (before, name), name=f"seed{seed}")
        for one in (before, name):
            found = faults(told[one], one)
            require(not found, f"{one}{f' after {before}' if one == name else ''}: {'; '.join(found)}")
        return {"layout": name, "before": before, "seconds": float(told[name]["seconds"])}


@contextmanager
def open_layouts(work: Path) -> Iterator[Case]:
    """Share one lab; its scratch lies where temporary files do."""
    with Lab(title="layouts") as lab:
        yield _Scene(lab, Cache(default_cache())).case


LAW = Law(
    "layouts",
    "what is made of a layout by a node's own kernel and tools is what was planned, whatever was there before",
    len(NAMES),
    open_layouts,
    at_once=2,
    keeps_cases=True,
)
