"""Rendering, naming and driving a plan: the three uses of one value.

Must not choose anything: what is shown here is what `making` decided.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from blake3 import blake3

from cloner_core.describing import describe_content, describe_disk
from cloner_core.plan.values import Plan
from cloner_core.steps import Step, wording


def plan_digest(plan: Plan) -> str:
    """Return the BLAKE3 (hex) of the plan's canonical encoding; equal digests mean equal plans."""
    encoded = msgspec.json.encode(plan, order="deterministic")
    return blake3(encoded, derive_key_context="cloner 2026 plan").hexdigest()


def apply(plan: Plan, run: Callable[[Step], None]) -> None:
    """Call `run` with each step in order; an exception of `run` ends it there."""
    for step in plan.steps:
        run(step)


def render_steps(steps: Sequence[Step]) -> str:
    """Return `steps` as numbered text, commands ready to paste into a root shell."""
    blocks = []
    for number, step in enumerate(steps, start=1):
        head = f"# step {number} of {len(steps)}: {step.why} [{step.stage}]"
        if step.destroys:
            head += f"\n# DESTROYS what is on {step.destroys}"
        blocks.append(f"{head}\n{wording(step.action)}\n")
    return "\n".join(blocks)


def render(plan: Plan) -> str:
    """Return exactly what `apply` runs, and what it destroys, as text for a person."""
    lines = [
        f"# plan {plan_digest(plan)}",
        f"# node {plan.node}: image {plan.image}, layout {plan.layout}",
        *(f"# note: {note}" for note in plan.notes),
    ]
    for planned in plan.disks:
        kept = ", ".join(one.device for one in planned.partitions if one.is_kept)
        what = f"all but {kept} will be destroyed" if kept else "all of it will be destroyed"
        lines.append(f"# disk '{planned.id}' is {describe_disk(planned.disk)}; {what}:")
        lines += [f"#   {line}" for line in describe_content(planned.disk)]
    return "\n".join(lines) + "\n\n" + render_steps(plan.steps)
