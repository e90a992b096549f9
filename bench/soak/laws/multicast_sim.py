"""Sessions in virtual time with all faults mixed: each ends, every live node has everything, and nothing wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from multicastsim.scenario import draw
from multicastsim.world import World
from soak.book import Entry
from soak.law import Case, Figures, Law, require, share


@contextmanager
def open_sessions(work: Path) -> Iterator[Case]:
    """A case runs the session of its seed; nothing is shared."""
    del work

    def case(seed: int) -> Figures:
        outcome = World(draw(seed)).run()
        require(not outcome.faults, "; ".join(outcome.faults))
        figures: dict[str, float | str] = {
            "receivers": float(outcome.receivers),
            "parcels over HTTPS": float(outcome.over_https),
            "poisoned parcels found": float(outcome.poisoned),
            "forged datagrams": float(outcome.forged),
            "reports of altered bytes": float(outcome.altered),
            "epochs": float(outcome.epochs),
        }
        return figures | {f"left {reason}": float(count) for reason, count in outcome.left.items()}

    yield case


def _enough(entries: Sequence[Entry]) -> str:
    """Say which faults hardly any of the sessions had."""
    seen = {
        "a sender that began anew": share(entries, lambda figures: _number(figures, "epochs") > 1),
        "false blocks of a member": share(entries, lambda figures: _number(figures, "poisoned parcels found") > 0),
        "forged datagrams": share(entries, lambda figures: _number(figures, "forged datagrams") > 0),
        "altered bytes": share(entries, lambda figures: _number(figures, "reports of altered bytes") > 0),
        "a node that left": share(entries, lambda figures: any(name.startswith("left") for name in figures)),
    }
    return ", ".join(f"{what} in {part:.1%} of the sessions" for what, part in seen.items() if part < 0.01)


def _number(figures: Figures, name: str) -> float:
    value = figures.get(name, 0.0)
    return value if isinstance(value, float) else 0.0


LAW = Law(
    "multicast-sim",
    "a multicast session ends, hands on nothing wrong, and leaves no live node without everything",
    10_000,
    open_sessions,
    enough=_enough,
)
