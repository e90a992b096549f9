"""The planner of `cloner_core`, asked from the server's side: which disks, which plan, which digest."""

from __future__ import annotations

from cloner_core.facts import Disk, Facts
from cloner_core.layout import Layout


def chosen_disks(layout: Layout, facts: Facts, protected_serials: tuple[str, ...]) -> tuple[Disk, ...]:
    """Return the disks `layout` selects on this machine; raises PlanError when it does not select one each."""
    from cloner_core.selectors import select_disks

    return tuple(select_disks(layout, facts.disks, protected_serials).values())
