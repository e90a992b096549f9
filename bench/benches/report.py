"""What a bench measured: medians, a table for people, JSON for docs/evidence/."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from benches.memory import warm

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Run:
    """One measured run of one competitor."""

    what: str  # "capture", "restore" …
    who: str
    wall_s: float
    user_s: float
    system_s: float
    stored_bytes: int = 0
    is_identical: bool | None = None  # None where there is nothing to compare


def measure(what: str, who: str, argv: Sequence[str], stored: Path | None = None) -> Run:
    """Run a program and return what it cost, processes it waited for included; exits the bench when it fails."""
    warm()
    start = time.monotonic()
    process = subprocess.Popen(argv)
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"bench: {' '.join(argv)} failed with status {process.returncode}")
    return Run(what, who, wall_s, usage.ru_utime, usage.ru_stime, size_of(stored) if stored is not None else 0)


def size_of(kept: Path) -> int:
    """Return the bytes of a file, or of all files beneath a directory."""
    files = [kept] if kept.is_file() else [path for path in kept.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files)


def options(name: str, argv: list[str], *, peers: Sequence[str] = (), has_scenes: bool = False) -> argparse.Namespace:
    """Return the options every bench has; with `peers` also which of them to run, with scenes which of those."""
    parser = argparse.ArgumentParser(prog=f"./run bench {name}")
    parser.add_argument("--runs", type=int, default=3, help="of each competitor, alternately (3)")
    parser.add_argument("--small", action="store_true", help="a tenth of the size: to see that it runs")
    parser.add_argument("--evidence", action="store_true", help="write JSON into docs/evidence/")
    if peers:
        parser.add_argument(
            "--peers", type=lambda text: text.split(";"), default=peers, metavar="A;B", help="only these"
        )
    if has_scenes:
        parser.add_argument("--match", default="", metavar="TEXT", help="only scenes with this in their name: 'no cap'")
    return parser.parse_args(argv)


def machine() -> dict[str, object]:
    """Return what the figures depend on, without the name of the machine."""
    commit = subprocess.run(("git", "rev-parse", "HEAD"), cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "commit": commit.stdout.strip(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load": [round(value, 2) for value in os.getloadavg()],
    }


def table(runs: Sequence[Run]) -> str:
    """Return medians, one line for each competitor in each discipline."""
    lines = [f"{'':10} {'':14} {'wall s':>8} {'CPU s':>8} {'MiB':>8}  runs  identical"]
    for what, who in dict.fromkeys((run.what, run.who) for run in runs):
        own = [run for run in runs if (run.what, run.who) == (what, who)]
        wall = statistics.median(run.wall_s for run in own)
        cpu = statistics.median(run.user_s + run.system_s for run in own)
        told = {None: "", True: "yes", False: "NO"}[own[0].is_identical and all(run.is_identical for run in own)]
        size = own[0].stored_bytes / (1 << 20)
        lines.append(f"{what:10} {who:14} {wall:8.2f} {cpu:8.2f} {size:8.1f}  {len(own):4}  {told}")
    return "\n".join(lines)


def ratio(runs: Sequence[Run], what: str, ours: str, theirs: str) -> dict[str, float]:
    """Return our medians divided by theirs."""

    def median(who: str, field: str) -> float:
        return statistics.median(
            run.user_s + run.system_s if field == "cpu" else float(getattr(run, field))
            for run in runs
            if (run.what, run.who) == (what, who)
        )

    return {
        name: round(median(ours, field) / median(theirs, field), 3)
        for name, field in (("wall", "wall_s"), ("cpu", "cpu"), ("size", "stored_bytes"))
        if median(theirs, field)
    }


def _cpu_ticks() -> tuple[int, int]:
    """Return the ticks that a hypervisor took from the CPUs, and all; proc_stat(5)."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return ticks[7], sum(ticks)


class Evidence:
    """A file in docs/evidence/, of the commit and the day it began; written again as more is measured."""

    def __init__(self, name: str) -> None:
        self._name, self._machine, self._began = name, machine(), _cpu_ticks()
        self.path = ROOT / "docs/evidence" / f"bench-{name}-{datetime.now(UTC):%Y%m%d}.json"

    def write(self, runs: Sequence[DataclassInstance], **more: object) -> Path:
        """Write everything measured, and how much of the CPUs' time the host took meanwhile; return the path."""
        stolen, ticks = (now - began for now, began in zip(_cpu_ticks(), self._began, strict=True))
        machine = {**self._machine, "stolen": round(stolen / max(1, ticks), 3)}
        document = {"bench": self._name, "machine": machine, **more, "runs": [asdict(run) for run in runs]}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
        return beside.replace(self.path)
