"""The reviewed layouts of `tests/core/layouts`, made by the agent on a machine with disks for all of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from cloner_initramfs import Cache
from cloner_initramfs.interpreter import checkout
from vmlab.disk import GIB, Bus, Disk, blank_disk
from vmlab.lab import Lab
from vmlab.workbench import run_on_node

_LAYOUTS = checkout() / "tests/core/layouts"
_PLANS = checkout() / "tests/core/golden/layouts"
NAMES = tuple(sorted(path.stem for path in _LAYOUTS.glob("*.yaml")))
_DEADLINE_S = 900


def make_layouts(lab: Lab, cache: Cache, names: Sequence[str], *, name: str = "layouts") -> dict[str, Any]:
    """Make the layouts `names` one after the other on one machine; return what came of each (`onnode.layouts`).

    Its disks are new, and gone afterwards.
    """
    scenes = {one: yaml.safe_load((_LAYOUTS / f"{one}.yaml").read_text()) for one in names}
    files = {"usr/lib/cloner/scenes.json": json.dumps(scenes).encode()}
    disks = _disks(lab.directory, name)
    try:
        return run_on_node(lab, cache, "layouts", disks, name=name, files=files, deadline_s=_DEADLINE_S)
    finally:
        for disk in disks:
            disk.path.unlink()


def faults(outcome: dict[str, Any], name: str) -> list[str]:
    """Return what is not as it should be; a layout is refused on a real machine where its reviewed plan is refused."""
    is_refused = (_PLANS / f"{name}.txt").read_text().startswith("# refused")
    if is_refused != ("refused" in outcome):
        return [outcome.get("refused", "not refused, as its reviewed plan is")]
    return list(outcome.get("faults", ()))


def _disks(directory: Path, name: str) -> tuple[Disk, ...]:
    """Make disks of every size that a layout wants, as many as the largest wants."""
    plain = tuple(blank_disk(directory / f"{name}-{n}", 40 * GIB, serial=f"PLAIN{n}") for n in range(5))
    small = blank_disk(directory / f"{name}-small", 2 * GIB, serial="SMALL")
    large = blank_disk(directory / f"{name}-large", 64 * GIB, serial="LARGE", bus=Bus.NVME, sector_bytes=4096)
    return (*plain, small, large)
