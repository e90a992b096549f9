"""The state machine: what is not in the table does not happen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.admin.tasks import TaskState
from cloner_core.errors import RefusedError
from cloner_server.state.tables import LIVE_TASK
from cloner_server.tasks.states import ACTIVE, CLAIMABLE, LIVE, Happening, can_happen, next_state

happenings = st.lists(st.sampled_from(Happening), max_size=40)


def run(steps: list[Happening], state: TaskState = TaskState.QUEUED) -> list[TaskState]:
    """Return every state a task goes through; what cannot happen does not."""
    seen = [state]
    for step in steps:
        if can_happen(seen[-1], step):
            seen.append(next_state(seen[-1], step))
    return seen


@given(happenings)
def test_done_is_the_end(steps: list[Happening]) -> None:
    seen = run(steps)
    assert TaskState.DONE not in seen[:-1]


@given(happenings)
def test_nothing_is_done_without_a_receipt_or_a_version(steps: list[Happening]) -> None:
    ends = (Happening.RECEIPT, Happening.RECEIPT_FINAL, Happening.CONFIRM, Happening.PUBLISHED)
    seen = run([step for step in steps if step not in ends])
    assert TaskState.DONE not in seen
    assert TaskState.UNCONFIRMED not in seen


@given(happenings)
def test_a_receipt_is_taken_only_after_a_claim(steps: list[Happening]) -> None:
    seen = run([step for step in steps if step not in (Happening.CLAIM, Happening.LATE_CLAIM)])
    assert TaskState.RUNNING not in seen
    assert TaskState.UNCONFIRMED not in seen


@given(happenings)
def test_a_frozen_task_moves_only_by_a_person(steps: list[Happening]) -> None:
    by_a_person = {Happening.ABORT, Happening.RETRY}
    seen = run([step for step in steps if step not in by_a_person], TaskState.FROZEN)
    assert seen == [TaskState.FROZEN]


@pytest.mark.parametrize("state", TaskState)
@pytest.mark.parametrize("happening", Happening)
def test_what_cannot_happen_is_refused_with_what_could(state: TaskState, happening: Happening) -> None:
    if can_happen(state, happening):
        assert next_state(state, happening) in TaskState
        return
    with pytest.raises(RefusedError) as caught:
        next_state(state, happening)
    assert state.value in caught.value.message
    assert caught.value.hint


def test_every_live_state_can_be_aborted_and_no_other() -> None:
    assert {state for state in TaskState if can_happen(state, Happening.ABORT)} == LIVE


def test_the_sets_agree_with_the_table_and_the_database() -> None:
    assert ACTIVE < CLAIMABLE < LIVE
    assert {state for state in TaskState if can_happen(state, Happening.CLAIM)} == CLAIMABLE
    assert {word.strip("'") for word in LIVE_TASK.split("(")[1].rstrip(")").split(", ")} == {s.value for s in LIVE}
