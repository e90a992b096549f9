"""The plan of a deploy: a value made from facts, a layout and a seed before anything is touched.

Chooses disks, places, identifiers and steps; starts nothing. The dry run, the log, the progress and the golden
tests render this same value (`render`), and server and agent compare its digest (`plan_digest`).
"""

from cloner_core.plan.driving import apply, plan_digest, render, render_steps
from cloner_core.plan.encryption import early, wanted_of
from cloner_core.plan.guarding import foreign_identifiers
from cloner_core.plan.making import make_plan, plan_task
from cloner_core.plan.values import (
    Contents,
    Plan,
    PlannedDisk,
    PlannedMount,
    PlannedPartition,
    PlannedVolume,
    partition_path,
)
from cloner_core.plan.writing import Written, written_by
from cloner_core.refusals import PlanError

__all__ = [
    "Contents",
    "Plan",
    "PlanError",
    "PlannedDisk",
    "PlannedMount",
    "PlannedPartition",
    "PlannedVolume",
    "Written",
    "apply",
    "early",
    "foreign_identifiers",
    "make_plan",
    "partition_path",
    "plan_digest",
    "plan_task",
    "render",
    "render_steps",
    "wanted_of",
    "written_by",
]
