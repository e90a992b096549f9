"""One file to many receivers on one wire: ours, udpcast and uftp, alternately (G1 to G7, G9 to G11, T7).

Loss is drawn for each receiver, the link is capped at the sender (tc tbf).
"""

from __future__ import annotations

import math
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benches import chart, disks, report
from benches.multicast_transfer import (
    CEILING,
    FRAME,
    OURS,
    UDPCAST,
    UFTP,
    Place,
    Run,
    Scene,
    transfer,
)
from cloner_core.multicast.session import BLOCK_BYTES
from netns.multicast_yard import LINK, Yard, yard

_MIB = 1 << 20
_FREE = (Scene(1, mib=512), Scene(4), Scene(8, mib=256))
_CLEAN = (Scene(1, cap_bps=1e9, mib=1024), Scene(2, cap_bps=1e9, mib=1024), Scene(8, cap_bps=200e6, mib=512))
_AT_1, _AT_5 = Scene(8, 0.01, 200e6, 384), Scene(8, 0.05, 200e6, 384)
# 32 receivers on two CPUs take more than these have at 100 Mbit/s.
_FEW, _MANY = Scene(1, cap_bps=50e6, mib=64), Scene(32, cap_bps=50e6, mib=64)
_SLOW, _LATE = Scene(8, cap_bps=200e6, mib=512, slow=0.2), Scene(8, cap_bps=200e6, mib=256, late=0.5)
SCENES = (*_FREE, Scene(8, 0.05, mib=256), *_CLEAN, Scene(2, 0.01, 1e9, 512), _AT_1, _AT_5)
_CALM, _FORGED = Scene(2, cap_bps=500e6, mib=256), Scene(2, cap_bps=500e6, mib=256, forged=0.5)
OURS_ALONE = (_CALM, _FORGED, _FEW, _MANY, _SLOW, _LATE)


class Medians:
    """Medians of what was run."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = runs

    def of(self, scene: Scene, who: str, field: str) -> float:
        """Return the median of a field over the runs that did not hang; NaN when one lacks it, or when all hung.

        Raises StatisticsError for what was not run.
        """
        own = [run for run in self._runs if (run.scene, run.who) == (scene.name, who)]
        values = [getattr(run, field) for run in own if not run.is_hung]
        if own and (not values or None in values):
            return math.nan
        return float(statistics.median(values))

    def ours(self, scene: Scene, field: str) -> float:
        return self.of(scene, OURS, field)

    def over(self, scene: Scene, other: str, field: str) -> float:
        """Return ours divided by that of another."""
        return self.of(scene, OURS, field) / self.of(scene, other, field)

    def extra(self, scene: Scene) -> float:
        """Return the bytes on the wire beyond one transmission with its headers, as a part of it."""
        return (self.ours(scene, "wire_share") + 1) * BLOCK_BYTES / FRAME - 1


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal of performance.md (G), or what a threat (T) may cost; `is_most`: `wanted` is the most that may be."""

    name: str
    what: str
    measure: Callable[[Medians], float]
    wanted: float
    is_most: bool = False


def _ours(scene: Scene, field: str) -> Callable[[Medians], float]:
    return lambda of: of.ours(scene, field)


def _over(scene: Scene, other: str, field: str) -> Callable[[Medians], float]:
    return lambda of: of.over(scene, other, field)


def _time_over(scene: Scene, other: Scene) -> Callable[[Medians], float]:
    return lambda of: of.ours(scene, "seconds") / of.ours(other, "seconds")


GOALS = (
    *(Goal("G1", scene.name, _ours(scene, "share_of_link"), 0.97) for scene in _CLEAN),
    Goal("G2", _AT_1.name, _ours(_AT_1, "share_of_link"), 0.95),
    Goal("G3", _AT_5.name, _ours(_AT_5, "share_of_link"), 0.85),
    Goal("G4", f"{_AT_1.name}: extra", lambda of: of.extra(_AT_1), 0.025, is_most=True),
    Goal("G4", f"{_AT_5.name}: extra", lambda of: of.extra(_AT_5), 0.09, is_most=True),
    *(
        Goal("G5", f"{scene.name}: ÷ {who}", _over(scene, who, "goodput_mbps"), 2.5)
        for scene in _FREE
        for who in (UDPCAST, UFTP)
    ),
    *(Goal("G6", f"{scene.name}: ÷ ceiling", _over(scene, CEILING, "goodput_mbps"), 0.75) for scene in _FREE),
    *(
        Goal("G7", f"{scene.name}: CPU ÷ udpcast", _over(scene, UDPCAST, "cpu_s_per_gib"), 0.55, is_most=True)
        for scene in (*_FREE, *_CLEAN)
    ),
    Goal("G9", "time ÷ without the slow one", _time_over(_SLOW, _CLEAN[2]), 1.1, is_most=True),
    Goal("G9", "s until it is sent away", _ours(_SLOW, "left_s"), 5.0, is_most=True),
    Goal("G10", "extra bytes ÷ what it missed", _ours(_LATE, "late_share"), 1.0, is_most=True),
    Goal("T7", "time ÷ with half of all forged", _time_over(_CALM, _FORGED), 0.7),
    Goal("T7", "datagrams found forged", _ours(_FORGED, "forged_share"), 0.4),
    Goal("G11", "time at 32 ÷ time at 1", _time_over(_MANY, _FEW), 1.1, is_most=True),
)


@dataclass(frozen=True, slots=True)
class Judged:
    """A goal, and what was reached."""

    goal: str
    what: str
    value: float | None  # None: not to be had
    wanted: str
    is_met: bool


def judge(runs: Sequence[Run]) -> list[Judged]:
    """Return what became of the goals whose scenes were run."""
    medians, found = Medians(runs), []
    for goal in GOALS:
        try:
            value = goal.measure(medians)
        except statistics.StatisticsError:
            continue
        is_met = value <= goal.wanted if goal.is_most else value >= goal.wanted
        wanted = f"{'≤≥'[not goal.is_most]} {goal.wanted:g}"
        found.append(Judged(goal.name, goal.what, None if math.isnan(value) else round(value, 4), wanted, is_met))
    return found


def _verdicts(judged: Sequence[Judged]) -> str:
    return "\n".join(
        f"{one.goal:4} {one.what:44} {one.value or math.nan:8.3f} {one.wanted:8} {'met' if one.is_met else 'MISSED'}"
        for one in judged
    )


def _table(runs: Sequence[Run]) -> str:
    lines = [f"{'':36} {'':8} {'Mbit/s':>8} {'of link':>8} {'wire':>7} {'CPU s/GiB':>10} {'whole':>6} {'hung':>4}"]
    medians = Medians(runs)
    scenes = {scene.name: scene for scene in (*SCENES, *OURS_ALONE)}
    for name, who in dict.fromkeys((run.scene, run.who) for run in runs):
        scene, own = scenes[name], [run for run in runs if (run.scene, run.who) == (name, who)]
        whole, hung = sum(run.whole for run in own), sum(run.is_hung for run in own)
        goodput, share, wire, cpu = (
            medians.of(scene, who, field) for field in ("goodput_mbps", "share_of_link", "wire_share", "cpu_s_per_gib")
        )
        lines.append(f"{name:36} {who:8} {goodput:8.0f} {share:8.3f} {wire:7.1%} {cpu:10.1f} {whole:6} {hung:4}")
    return "\n".join(lines)


def _write_file(path: Path, mib: int) -> None:
    chance = random.Random(1)
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(chance.randbytes(_MIB))


def _arrange(made: Yard, scene: Scene) -> None:
    for number in range(1, scene.receivers + 1):
        if scene.loss:
            made.lose(number, scene.loss)
    if scene.cap_bps:
        rate = ("rate", f"{int(scene.cap_bps)}bit", "burst", "256kb", "latency", "50ms")
        disks.sh("tc", "-n", made.of(0), "qdisc", "add", "dev", LINK, "root", "tbf", *rate)


def _who(scene: Scene, peers: Sequence[str]) -> list[str]:
    """Return who runs in a scene: some are for us alone, and a ceiling is where nothing else limits."""
    others = () if scene in OURS_ALONE else (UDPCAST, UFTP, *((CEILING,) if scene in _FREE else ()))
    return [OURS, *(who for who in others if who in peers)]


def _panels(runs: Sequence[Run]) -> list[chart.Panel]:
    medians = Medians(runs)
    panels: list[chart.Panel] = []
    for scene in SCENES:
        who = dict.fromkeys(run.who for run in runs if run.scene == scene.name and run.who != CEILING)
        if who:
            goodput = {one: medians.of(scene, one, "goodput_mbps") for one in who}
            # Who hung every time has no bar.
            panels.append((f"{scene.name}: goodput", "Mbit/s", {k: v for k, v in goodput.items() if not math.isnan(v)}))
    return panels


def main(argv: list[str]) -> int:
    """Run the bench; returns 1 when a file of ours was not whole."""
    options = report.options("multicast", argv, peers=(OURS, UDPCAST, UFTP, CEILING), has_scenes=True)
    scenes = [scene for scene in (*SCENES, *OURS_ALONE) if options.match in scene.name]
    if not scenes:
        sys.exit(f"bench: no scene has {options.match!r} in its name")
    runs: list[Run] = []
    evidence = report.Evidence("multicast")
    method = "a bridge and namespaces; each datagram a frame; loss by nftables at each port; tc tbf at the sender"
    with disks.workspace() as room:
        for scene in scenes:
            source = room / "file"
            _write_file(source, scene.mib // 8 if options.small else scene.mib)
            with yard(scene.stranger if scene.forged else scene.receivers) as made:
                _arrange(made, scene)
                for _ in range(options.runs):
                    for who in _who(scene, options.peers):
                        with disks.workspace() as own:
                            runs.append(transfer(Place(made, scene, source, own), who))
            print(_table([run for run in runs if run.scene == scene.name]), flush=True)
            if options.evidence:  # what was measured stays when the rest is not
                goals = [asdict(one) for one in judge(runs)]
                evidence.write(runs, method=method, goals=goals, is_complete=not options.match and scene is scenes[-1])
    judged = judge(runs)
    print(f"{_table(runs)}\n{_verdicts(judged)}")
    if options.evidence:
        print(evidence.path)
    if options.evidence and not options.match:
        title = "One file to many receivers: goodput of each, on two CPUs (more is better)"
        print(chart.write_panels("multicast", title, _panels(runs), OURS))
    served = {scene.name: scene.served for scene in scenes}
    return 0 if all(run.whole == served[run.scene] for run in runs if run.who == OURS) else 1
