"""All nodes of a room at once: the ill ones are named rightly, the others end `done`, and the ill ones after a retry.

`--count` is the number of machines of one fleet, every one real agent code over TLS against one real server; the disks
are simulated (docs/simulated-agents.md). 3 in 100 are ill, at least one of each kind.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agentbench.fleet import ILLNESSES, Fleet
from agentbench.ground import Ground, ground
from agentbench.yard import End, Running
from soak.law import Case, Figures, Law, require

_MOST_S = 3600.0
_ILL_OF = 33


@dataclass
class FleetCase:
    """One fleet; a seed is one machine of it."""

    directory: Path
    collect: Callable[[Running, End], list[str]] = lambda one, end: []
    """Asked at the end of each boot of a machine; a test keeps what it says as secrets to look for."""
    secrets: set[str] = field(default_factory=set)
    figures: dict[int, dict[str, float | str]] = field(default_factory=dict)
    fleet: Fleet = field(init=False)

    def gather(self, seeds: Sequence[int]) -> None:
        """Clone all machines together."""
        with ground(self.directory) as made:
            self.clone(made, seeds)

    def __call__(self, seed: int) -> Figures:
        """Return what became of one machine."""
        return self.figures[seed]

    def clone(self, made: Ground, seeds: Sequence[int]) -> None:
        """Hold the law on this ground."""
        kinds = len(ILLNESSES)
        ill_count = max(kinds, len(seeds) // _ILL_OF // kinds * kinds)
        fleet = self.fleet = Fleet(made, len(seeds), seeds[0], ill_count)
        fleet.add()
        for one in made.yard.machines:
            one.on_end = lambda one, end: self.secrets.update(self.collect(one, end))
        started_s = time.monotonic()
        fleet.deploy(_MOST_S)
        first = fleet.states()
        groups = made.cloner("failures", accept=range(20, 121))["groups"]
        misnamed = fleet.misnamed(groups)
        require(not misnamed, f"misnamed: {misnamed}")
        require(len(groups) == kinds, f"{len(groups)} groups for {kinds} illnesses")
        require(first == {"done": len(seeds) - ill_count, "failed": ill_count}, f"after the first pass: {first}")
        fleet.require_honest()
        fleet.retry(_MOST_S)
        after = fleet.states()
        require(after == {"done": len(seeds)}, f"after the retry: {after}")
        fleet.require_honest()
        whole_s = time.monotonic() - started_s
        self._note(fleet, seeds, whole_s)

    def _note(self, fleet: Fleet, seeds: Sequence[int], whole_s: float) -> None:
        machines = zip(seeds, fleet.ground.yard.machines, strict=True)
        for seed, one in machines:
            ill = fleet.ill.get(one.machine.name)
            self.figures[seed] = {
                "illness": ill.name if ill else "none",
                "boots": float(len(one.ends)),
                "seconds_to_first_end": round(one.first_end_s, 3),
            }
        server = fleet.ground.served
        self.figures[seeds[0]] |= {
            "server_peak_rss_mib": server.peak_rss_bytes() / (1 << 20),
            "server_cpu_s": server.cpu_s(),
            "database_mib": (server.state / "cloner.db").stat().st_size / (1 << 20),
            "fleet_seconds": whole_s,
            "times_lost": float(fleet.ground.times("silence")),
            **{f"{name.replace(' ', '_')}_seconds": seconds for name, seconds in fleet.seconds.items()},
        }


@contextmanager
def open_fleet(work: Path) -> Iterator[Case]:
    """One server for all."""
    yield FleetCase(work)


LAW = Law(
    "fleet",
    "of all machines cloned at once from one server the ill ones are each named rightly, and one retry mends them",
    400,
    open_fleet,
)
