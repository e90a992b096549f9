"""Has the agent make what a plan says on the disks of a node, by its own code, as a deploy does before the restore."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from cloner_agent.apply import apply_step
from cloner_agent.attempt import Attempt, Tools
from cloner_agent.host import run
from cloner_core.facts import Facts
from cloner_core.messages import Stage
from cloner_core.plan import Plan
from cloner_core.steps import MakeSwapFile, StageEsp, Step

_STAGES = (Stage.GUARD, Stage.PARTITION, Stage.MKFS, Stage.MOUNT)


class _Reporter:
    """Knows the stage, which is all that the steps on disks ask for."""

    stage = Stage.GUARD


def make(plan: Plan, steps: Iterable[Step], facts: Facts, look: Callable[[], Facts]) -> None:
    """Apply those of `steps` that make disks, filesystems and swap files; what has a mount point is mounted then."""
    reporter, nothing = _Reporter(), cast(Any, None)
    tools = Tools(nothing, run, cast(Any, reporter), look, nothing, b"")
    attempt = Attempt(tools, nothing, facts, nothing, plan)
    for step in steps:
        if isinstance(step.action, StageEsp):
            continue  # which hides the ESP
        if step.stage in _STAGES or isinstance(step.action, MakeSwapFile):
            reporter.stage = step.stage
            apply_step(attempt, step.action)
    run(("udevadm", "settle", "--timeout=30"))
