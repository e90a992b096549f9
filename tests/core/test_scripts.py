"""Scripts of images: their rules, their order, and where they stand in a plan."""

from __future__ import annotations

import msgspec
import pytest

from cloner_core.messages import SCRIPT_STAGES, Stage
from cloner_core.plan import Plan, make_plan, plan_digest, render
from cloner_core.scripts import (
    MAX_BYTES,
    MAX_SCRIPTS,
    OnFailure,
    Script,
    ScriptChange,
    ScriptSet,
    ScriptType,
    changed,
    interpreter,
    script_faults,
)
from cloner_core.steps import Check, Guard, RunScript
from core.machines import CONTENTS, SEED, disk, layout, machine

TEXT = "#!/bin/sh\ntrue\n"
PRE, POST = ScriptType.PRE, ScriptType.POST


def script(name: str = "one", kind: ScriptType = POST, content: str = TEXT, **fields: object) -> Script:
    return msgspec.structs.replace(Script(kind, name, content), **fields)


FAULTS = {
    "no interpreter": ("echo\n", "names no interpreter"),
    "relative interpreter": ("#!sh\ntrue\n", "names no interpreter"),
    "empty": ("", "names no interpreter"),
    "Windows": ("#!/bin/sh\r\ntrue\r\n", "line ends of Windows"),
    "only a first line": ("#!/bin/sh", "nothing after its first line"),
    "binary": ("\x7fELF\0\0", "is a binary"),
    "too long": (TEXT + "#" * MAX_BYTES, "at most 65536"),
}


@pytest.mark.parametrize(("content", "fault"), FAULTS.values(), ids=FAULTS.keys())
def test_what_is_no_script_is_told_by_its_fault(content: str, fault: str) -> None:
    (told,) = script_faults([script(content=content)])
    assert told.startswith("post 'one': ")
    assert fault in told


def test_a_pre_script_wants_what_the_initramfs_has_and_a_post_script_anything() -> None:
    bash = "#!/usr/bin/env bash\ntrue\n"
    assert script_faults([script(content=bash)]) == []
    assert "not in the agent's initramfs" in script_faults([script(kind=PRE, content=bash)])[0]
    assert script_faults([script(kind=PRE), script("py", PRE, "#!/usr/bin/python3 -I\npass\n")]) == []
    assert interpreter(script(content="#! /bin/sh -e\n")) == "/bin/sh"


def test_every_fault_is_told_at_once() -> None:
    wrong = script("a b", content="x", order=-1, timeout_s=0)
    assert len(script_faults([wrong])) == 4
    assert "given 2 times" in "".join(script_faults([script(), script()]))
    assert "at most 32" in "".join(script_faults([script(f"s{n}") for n in range(MAX_SCRIPTS + 1)]))
    full = "#!/bin/sh\n" + "#" * (MAX_BYTES - 10)
    assert script_faults([script(name, content=full) for name in ("a", "b")]) == []
    assert "together" in "".join(script_faults([script(name, content=full) for name in ("a", "b", "c")]))


def test_a_change_puts_replaces_and_removes_by_type_and_name() -> None:
    first = changed((), ScriptChange(put=script("b", order=10)))
    both = changed(first, ScriptChange(put=script("b", PRE)))
    assert [(s.type, s.name) for s in both] == [(PRE, "b"), (POST, "b")]
    replaced = changed(both, ScriptChange(put=script("b", content=TEXT * 2)))
    assert [s.content for s in replaced] == [TEXT, TEXT * 2]
    assert changed(replaced, ScriptChange(remove=(PRE, "b"))) == (replaced[1],)


def test_scripts_run_by_order_then_by_name() -> None:
    every = ScriptSet(1, (script("c", order=1), script("b"), script("a"), script("z", PRE)))
    assert [s.name for s in every.of_type(POST)] == ["c", "a", "b"]


def test_a_plan_has_pre_scripts_before_the_guard_and_post_scripts_before_the_check() -> None:
    scripts = (script("late", order=90), script("early"), script("ask", PRE, on_failure=OnFailure.NOTE))

    def plan_with(*wanted: Script) -> Plan:
        return make_plan(
            machine(disk()), layout(), node="n", image="i:1", version_digest="ab" * 32, seed=SEED,
            contents=CONTENTS, scripts=wanted,
        )  # fmt: skip

    plan, bare = plan_with(*scripts), plan_with()
    actions = [step.action for step in plan.steps]
    names = [action.name for action in actions if isinstance(action, RunScript)]
    assert names == ["ask", "early", "late"]
    assert isinstance(actions[1], Guard)
    assert isinstance(actions[[step.stage for step in plan.steps].index(Stage.CHECK)], Check)
    assert isinstance(actions[[step.stage for step in plan.steps].index(Stage.CHECK) - 1], RunScript)
    order = list(Stage)
    assert [step.stage for step in plan.steps] == sorted((s.stage for s in plan.steps), key=order.index)
    assert tuple(step for step in plan.steps if step.stage not in SCRIPT_STAGES) == bare.steps
    assert f"'early' ({script('early').digest}) confined in the clone" in render(plan)
    assert "a failure is noted" in render(plan)
    other = plan_with(*scripts[:2], script("ask", PRE, "#!/bin/sh\nfalse\n", on_failure=OnFailure.NOTE))
    assert plan_digest(plan) != plan_digest(other)
