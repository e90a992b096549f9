"""A server whose disk fills at any moment keeps what it answered, tells what it cannot keep, and goes on with room.

Its state lies on a filesystem of 24 MiB that fills and empties by chance while admins and agents work: what is
refused for want of room may be sent again, what was answered stays, and nothing half-made is left.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.exc import DBAPIError

import torture
from cloner_core.errors import ClonerError
from serverbench.scene import make_template, open_scene
from soak.book import Entry
from soak.law import Case, Figures, Law, require, share
from soak.laws.server_kill import STEPS, Line, Work, after, check, go_on

_REFUSED = 0.95
_ROOMS = (0, 4096, 16 << 10, 64 << 10, 300 << 10)  # bytes left free: for nothing, a little, and some of a request


@contextmanager
def open_server_full(work: Path) -> Iterator[Case]:
    """Every case has a filesystem of its own, with a copy of one state on it."""
    make_template(work / "template")

    def case(seed: int) -> Figures:
        with (
            tempfile.TemporaryDirectory(dir=work) as directory,
            torture.small_disk(Path(directory) / "disk", "24m") as disk,
        ):
            shutil.copytree(work / "template", disk / "state")
            return _case(disk, seed)

    yield case


@dataclass
class _Disk:
    """What fills the disk."""

    path: Path

    def leave(self, room: int) -> None:
        with (self.path / "ballast").open("wb", buffering=0) as ballast:
            status = os.statvfs(self.path)
            ballast.write(bytes(max(0, status.f_bavail * status.f_frsize - room)))

    def empty(self) -> None:
        (self.path / "ballast").unlink(missing_ok=True)


def _case(directory: Path, seed: int) -> Figures:
    chance, disk, seen = random.Random(f"full {seed}"), _Disk(directory), Counter[str]()
    lines: list[Line] = []
    scene = open_scene(directory / "state")
    try:
        work = Work(scene, random.Random(seed), lines.append)
        for _ in range(2 * STEPS):
            is_full = chance.random() < 0.5
            if is_full:
                disk.leave(chance.choice(_ROOMS))
            try:
                work.step()
                seen["done, full" if is_full else "done"] += 1
            except (ClonerError, DBAPIError, AssertionError) as fault:
                require(is_full, f"refused with room: {fault}")
                require("full" in str(fault) or "no room" in str(fault), f"refused for something else: {fault}")
                seen["refused"] += 1
            disk.empty()
        left_over = list((directory / "state" / "store" / "tmp").iterdir())
        require(left_over == [], f"temporary files are left: {left_over}")
        kept, _ = after(lines)
        check(scene, kept)
        go_on(scene)
    finally:
        disk.empty()
        scene.core.database.close()
    return {**seen, "facts": len(kept)}


def enough(entries: Sequence[Entry]) -> str:
    """See `Law.enough`: nearly every disk fills while there is something to write on it."""
    refused = share(entries, lambda figures: float(figures.get("refused", 0)) > 0)
    return "" if refused >= _REFUSED else f"in {refused:.0%} of the cases something was refused, {_REFUSED:.0%} wanted"


LAW = Law(
    "server-full",
    "a server whose disk is full at any moment keeps what it answered, and ends the work when there is room",
    100,
    open_server_full,
    enough=enough,
)
