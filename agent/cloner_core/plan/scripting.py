"""Where the scripts of an image stand among the steps of a deploy.

Pre-scripts before the guard: what they change on the machine is looked at by it. Post-scripts when everything of the
clone is in its place, and before it is checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cloner_core.messages import Stage
from cloner_core.scripts import Script, ScriptSet, ScriptType
from cloner_core.steps import Check, Guard, RunScript, Step


def with_scripts(steps: Sequence[Step], scripts: Sequence[Script]) -> tuple[Step, ...]:
    """Return `steps` with one for each of `scripts`."""
    every = ScriptSet(scripts=tuple(scripts))
    done: list[Step] = []
    for step in steps:
        if isinstance(step.action, Guard):
            done += _steps(every.of_type(ScriptType.PRE), Stage.PRE_SCRIPT)
        elif isinstance(step.action, Check):
            done += _steps(every.of_type(ScriptType.POST), Stage.POST_SCRIPT)
        done.append(step)
    return tuple(done)


def _steps(scripts: Sequence[Script], stage: Stage) -> Iterator[Step]:
    for script in scripts:
        action = RunScript(script.type, script.name, script.digest, script.timeout_s, script.on_failure)
        yield Step(stage, f"run the {script.type}-script '{script.name}'", action)
