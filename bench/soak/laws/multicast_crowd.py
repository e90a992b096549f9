"""Sessions with receivers that are ill: the others have everything, in not much more time than without them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cloner_core.multicast.session import Leaving
from netns.multicast_crowd import Ill, Outcome, play
from soak.law import Case, Figures, Law, require

_MOST = 1.3
"""Of the time of a session without anybody who is ill."""
_PARCELS = 160  # 24 MB, four seconds: the patience of 0.5 s with one who is slow is an eighth of it
_LEAVES = {
    Ill.SLOW: {Leaving.SLOW},
    Ill.GREEDY: {Leaving.GREEDY},
    Ill.VANISHING: {Leaving.SILENT},
    Ill.BABBLING: {Leaving.SILENT},
}


@contextmanager
def open_crowds(work: Path) -> Iterator[Case]:
    """Nothing is shared: each case makes its namespaces, and takes them away."""
    yield lambda seed: _try(work / str(seed), seed)


def _try(directory: Path, seed: int) -> Figures:
    chance = random.Random(seed)
    receivers = chance.randint(8, 20)
    ill = dict(zip(chance.sample(range(receivers), len(Ill)), Ill, strict=True))
    clean = _play(directory / "clean", receivers, {}, seed)  # as many processes, or the processors decide
    among = _play(directory / "among", receivers, ill, seed)
    for number, what in ill.items():
        left = among.left[number]
        require(left in _LEAVES[what], f"receiver {number}, which is {what}, left as {left!r}")
    ratio = among.well_s / clean.well_s
    require(ratio <= _MOST, f"{among.well_s:.2f} s among the ill, {clean.well_s:.2f} s without them")
    return {
        "receivers": float(receivers),
        "seconds without the ill": round(clean.well_s, 2),
        "seconds among them": round(among.well_s, 2),
        "ratio": round(ratio, 3),
        "combinations": float(among.sent.combinations),
    }


def _play(directory: Path, receivers: int, ill: Mapping[int, Ill], seed: int) -> Outcome:
    directory.mkdir(parents=True)
    outcome = play(directory, receivers, _PARCELS, ill, seed=seed)
    for number, got, left, state in outcome.ended:
        require(left is None, f"receiver {number}, which is well, left as {left!r}")
        require(got == list(range(_PARCELS)), f"receiver {number} lacks parcels: it has {len(got)} of {_PARCELS}")
        require(not state.poisoned, f"receiver {number} put {state.poisoned} parcels together wrongly")
    return outcome


LAW = Law(
    "multicast-crowd",
    "beside the slow, greedy, vanishing and babbling all others have everything in at most 1.3 times the time",
    50,
    open_crowds,
    keeps_cases=True,
)
