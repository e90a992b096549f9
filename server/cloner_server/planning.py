"""The planner of `cloner_core`, asked from the server's side: which disks, which plan, which digest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from cloner_core.erasing.plan import erase_digest, plan_erase
from cloner_core.erasing.words import EraseTask
from cloner_core.facts import Disk, Facts
from cloner_core.layout import Kept, Layout
from cloner_core.messages import Task
from cloner_core.plan import Plan, partition_path, plan_digest, plan_task, render, written_by
from cloner_core.plan.contents import contents_of, has_old_xfs
from cloner_core.refusals import PlanError
from cloner_core.selectors import select_disks
from cloner_core.steps import BootFiles
from cloner_server.catalog import Version


def chosen_disks(
    layout: Layout, facts: Facts, protected_serials: Sequence[str]
) -> tuple[tuple[Disk, frozenset[str]], ...]:
    """Return the disks `layout` selects on this machine, each with the partitions on it that are kept.

    Raises PlanError when it does not select one each.
    """
    chosen = select_disks(layout, facts.disks, protected_serials)
    return tuple(
        (
            chosen[wanted.id],
            frozenset(
                partition_path(chosen[wanted.id].path, one.content.number)
                for one in wanted.partitions
                if isinstance(one.content, Kept)
            ),
        )
        for wanted in layout.disks
    )


@dataclass(frozen=True, slots=True)
class Expected:
    """The plan an attempt must have made."""

    digest: str
    planned: str  # what of it the receipt must repeat, as JSON


def expected_of(plan: Plan) -> Expected:
    """Return what a deploy's plan is compared by."""
    return Expected(plan_digest(plan), msgspec.json.encode(written_by(plan)).decode())


def expected_erase(facts: Facts, told: EraseTask) -> Expected:
    """Return the plan of an erase that an attempt with these facts and this task must have made; raises PlanError."""
    plan = plan_erase(facts, told)
    return Expected(erase_digest(plan), msgspec.json.encode(plan).decode())


def expected_plan(facts: Facts, told: Task, version: Version) -> Plan:
    """Return the plan an attempt with these facts and this task must have made.

    Raises PlanError when no plan can be made.
    """
    return plan_task(facts, told, contents_of(version.root), has_old_xfs=has_old_xfs(version.root))


def boot_actions(facts: Facts, told: Task, version: Version) -> tuple[BootFiles, ...]:
    """Return what the plan says of the clone's boot; () where there is no plan, for which there are better words."""
    try:
        plan = expected_plan(facts, told, version)
    except PlanError:
        return ()
    return tuple(step.action for step in plan.steps if isinstance(step.action, BootFiles))


def preview(facts: Facts, told: Task, version: Version) -> tuple[str, str]:
    """Return the plan as text, and its digest; raises PlanError when no plan can be made."""
    plan = expected_plan(facts, told, version)
    return render(plan), plan_digest(plan)
