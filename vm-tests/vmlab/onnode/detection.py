"""Makes what a layout says on the disks of a node, with the plan's own steps, and detects it again.

The layout is in the file /layout.json; `core.worlds` of the unit tests is here as well.
"""

from __future__ import annotations

from pathlib import Path

from cloner_agent.detecting import ask
from cloner_agent.host import run
from cloner_agent.probe import probe
from cloner_core.detection import detect
from cloner_core.facts import Facts
from cloner_core.fstab import make_fstab
from cloner_core.layout import parse_layout
from cloner_core.messages import BootPolicy
from cloner_core.plan import Plan
from cloner_core.plan.sequence import steps_of
from cloner_core.steps import TARGET
from core.worlds import built, crypttab_of
from vmlab.onnode.making import make
from vmlab.onnode.reporting import tell


def main() -> None:
    """Tell the layout that was detected, and what was said with it."""
    layout = parse_layout(Path("/layout.json").read_bytes())
    facts = probe(run)
    _make(built(facts, layout), facts)
    detected = detect(ask(run, tree=TARGET), layout.name)
    tell("layout", detected.layout)
    tell("notes", detected.notes)


def _make(plan: Plan, facts: Facts) -> None:
    steps = steps_of(plan, hostname="node01", boot=BootPolicy(), inodes={})
    make(plan, steps, facts, lambda: probe(run))
    etc = Path(TARGET, "etc")
    etc.mkdir(exist_ok=True)
    (etc / "fstab").write_bytes(make_fstab(None, plan.entries).content)
    (etc / "crypttab").write_text(crypttab_of(plan))


if __name__ == "__main__":
    main()
