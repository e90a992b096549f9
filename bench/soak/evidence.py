"""What a soak leaves behind: figures, and the commit and machine they come from."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from soak.book import Entry, Heading
from soak.law import Law


class Spread(msgspec.Struct, frozen=True):
    """A number over all cases."""

    least: float
    median: float
    most: float
    total: float


class Machine(msgspec.Struct, frozen=True):
    """Where a soak ran."""

    cpus: int
    memory_mib: int
    kernel: str
    python: str


class Evidence(msgspec.Struct, frozen=True, omit_defaults=True):
    """docs/evidence/NAME.json."""

    law: str
    says: str
    has_held: bool
    commit: str  # with "-dirty" when tracked files differed from it
    date: str
    machine: Machine
    first_seed: int
    count: int
    passed: int
    failed_seeds: tuple[int, ...]
    seconds: float
    figures: Mapping[str, Spread | Mapping[str, int]]
    tried: int | None = None  # None: all of `count`; else the soak was stopped, and has not held yet
    too_little: str = ""  # why the law has not held although no case broke it: what was to happen did not
    cases: tuple[Entry, ...] = ()  # of a law whose cases are worth looking at one by one


def this_machine() -> Machine:
    """Return the facts of this machine that figures depend on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(os.cpu_count() or 1, memory >> 20, platform.release(), platform.python_version())


def this_commit(checkout: Path) -> str:
    """Return the commit of `checkout`; evidence itself makes nothing dirty. "unknown" outside of git."""

    def git(*arguments: str) -> str:
        argv = ("git", "-C", str(checkout), *arguments)
        return subprocess.run(argv, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL).stdout.strip()

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/evidence")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}-dirty" if changed else commit


def sum_up(entries: Sequence[Entry]) -> dict[str, Spread | Mapping[str, int]]:
    """Return each figure over all cases that have it: numbers spread out, words counted."""
    result: dict[str, Spread | Mapping[str, int]] = {}
    for name in sorted({name for entry in entries for name in entry.figures}):
        values = [entry.figures[name] for entry in entries if name in entry.figures]
        numbers = [value for value in values if not isinstance(value, str)]
        if len(numbers) == len(values):
            spread = (min(numbers), statistics.median(numbers), max(numbers), sum(numbers))
            result[name] = Spread(*(round(value, 3) for value in spread))
        else:
            result[name] = dict(sorted(Counter(str(value) for value in values).items()))
    return result


def make_evidence(law: Law, heading: Heading, entries: Sequence[Entry]) -> Evidence:
    """Return the evidence of a soak, now and on this machine."""
    failed = tuple(entry.seed for entry in entries if entry.failure)
    has_ended = len(entries) == heading.count
    # A few cases, to see one seed again, show that case alone.
    too_little = law.enough(entries) if has_ended and heading.count >= law.count else ""
    return Evidence(
        law=heading.law,
        says=law.says,
        has_held=not failed and has_ended and not too_little,
        commit=heading.commit,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=this_machine(),
        first_seed=heading.first_seed,
        count=heading.count,
        tried=None if has_ended else len(entries),
        passed=len(entries) - len(failed),
        failed_seeds=failed,
        seconds=round(sum(entry.seconds for entry in entries), 1),
        figures=sum_up(entries),
        too_little=too_little,
        cases=tuple(entries) if law.keeps_cases else (),
    )


def write_evidence(path: Path, evidence: Evidence) -> None:
    """Write the document for people and diffs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(evidence), indent=2) + b"\n")
