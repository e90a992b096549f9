"""Failures staged on simulated machines: each is told as what it is, and none flips, boots half an image or succeeds.

All machines of a table run at once; a case looks at what became of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agentbench import faults
from agentbench.ground import Ground
from agentbench.honesty import require_honest
from agentbench.rows import KILL_ROWS, ROWS
from agentbench.staging import Outcome, staged

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1200)]  # a table of sixty machines is one set-up

Staged = tuple[Ground, dict[str, Outcome]]


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staged]:
    """Run a table of rows. The machines of one are gone before the next begins: those that hold beat on and on."""
    rows = {"failures": ROWS, "kills": KILL_ROWS}[request.param]
    with staged(tmp_path_factory.mktemp(request.param), rows) as made:
        yield made


@pytest.mark.parametrize("table", ["failures"], indirect=True)
@pytest.mark.parametrize("name", ROWS)
def test_a_staged_failure(table: Staged, name: str) -> None:
    _require(*table, name)


@pytest.mark.parametrize("table", ["kills"], indirect=True)
@pytest.mark.parametrize("name", KILL_ROWS)
def test_a_server_killed(table: Staged, name: str) -> None:
    _require(*table, name)


def _require(ground: Ground, outcomes: dict[str, Outcome], name: str) -> None:
    outcome = outcomes[name]
    row, task, failure = outcome.row, outcome.task, outcome.task["failure"]
    console = outcome.one.console.read_text()[-3000:]
    _require_happened(outcome)
    require_honest(ground, outcome.one, former=outcome.former)
    assert task["state"] == row.state, (failure, outcome.one.ends, console)
    told = (failure["stage"], failure["cause"]) if failure else (None, None)
    assert told == (row.stage, row.cause), failure
    if failure:
        assert row.expected_hint in failure["hint"]
        assert failure["is_destroyed"] is (outcome.former != outcome.one.machine.disk.digest())
    assert outcome.one.end is row.end, (outcome.one.ends, console)
    assert task["attempts"] == row.attempts
    if row.alarm:
        assert row.alarm in outcome.events
    assert row.said in outcome.one.console.read_text()
    assert row.note in " ".join(outcome.notes)


def _require_happened(outcome: Outcome) -> None:
    """What was staged has happened: the end alone does not say so of a machine that was to end well."""
    row, one = outcome.row, outcome.one
    assert not one.at, f"never came to {list(one.at)}, only to {one.stages}"
    assert set(one.within) <= set(one.stages), one.stages
    assert one.wire is not None
    assert not one.wire.was_unmet, "nobody met what the cable did"
    if row.spoil is not None and row.state == "done":
        assert faults.programs_that_failed(one.machine), "no program was run that was to fail"
