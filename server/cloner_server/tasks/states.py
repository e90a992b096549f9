"""The states of a task and what leads from one to the next: a table, and nothing that is not in it happens."""

from __future__ import annotations

from enum import StrEnum

from cloner_core.admin.tasks import TaskState
from cloner_core.errors import RefusedError


class Happening(StrEnum):
    """What can happen to a task."""

    SCRIPT = "script"  # the boot script with a claim was served
    CLAIM = "claim"  # an agent became an attempt
    LATE_CLAIM = "late-claim"  # an agent came after its task was given up for not booting
    BEAT = "beat"
    SILENCE = "silence"  # no beat for too long
    RECEIPT = "receipt"
    RECEIPT_FINAL = "receipt-final"  # a receipt where no confirmation is asked for
    PUBLISHED = "published"  # the version that a node at rest was captured as
    CONFIRM = "confirm"
    FAIL = "fail"
    FREEZE = "freeze"
    ABORT = "abort"
    RETRY = "retry"


S = TaskState
LIVE = frozenset({S.QUEUED, S.WAITING, S.BOOTING, S.RUNNING, S.LOST, S.UNCONFIRMED, S.FROZEN})
"""States in which the task holds its node: no second task can be armed there."""

CLAIMABLE = frozenset({S.QUEUED, S.BOOTING, S.RUNNING, S.LOST})
"""States in which the agent is offered at a network boot and a claim is accepted."""

ACTIVE = frozenset({S.RUNNING, S.LOST})
"""States in which the attempt's requests are served."""

_TABLE: dict[Happening, dict[TaskState, TaskState]] = {
    Happening.SCRIPT: {S.QUEUED: S.BOOTING, S.BOOTING: S.BOOTING, S.LOST: S.LOST, S.RUNNING: S.RUNNING},
    Happening.CLAIM: {S.QUEUED: S.RUNNING, S.BOOTING: S.RUNNING, S.LOST: S.RUNNING, S.RUNNING: S.RUNNING},
    # Guarded by the cause: a slow machine is a slow machine, and not a failed one.
    Happening.LATE_CLAIM: {S.FAILED: S.RUNNING},
    Happening.BEAT: {S.RUNNING: S.RUNNING, S.LOST: S.RUNNING},
    Happening.SILENCE: {S.RUNNING: S.LOST},
    # A receipt may arrive before the beat that would have ended `lost`.
    Happening.RECEIPT: {S.RUNNING: S.UNCONFIRMED, S.LOST: S.UNCONFIRMED},
    Happening.RECEIPT_FINAL: {S.RUNNING: S.DONE, S.LOST: S.DONE},
    Happening.PUBLISHED: {S.RUNNING: S.DONE, S.LOST: S.DONE},
    # A clone that calls after the deadline still came up: the truth wins over the deadline (guarded by the cause).
    Happening.CONFIRM: {S.UNCONFIRMED: S.DONE, S.FAILED: S.DONE},
    Happening.FAIL: {
        S.QUEUED: S.FAILED,
        S.WAITING: S.FAILED,
        S.BOOTING: S.FAILED,
        S.RUNNING: S.FAILED,
        S.LOST: S.FAILED,
        S.UNCONFIRMED: S.FAILED,
    },
    Happening.FREEZE: {S.QUEUED: S.FROZEN, S.BOOTING: S.FROZEN, S.RUNNING: S.FROZEN, S.LOST: S.FROZEN},
    Happening.ABORT: dict.fromkeys(LIVE, S.ABORTED),
    Happening.RETRY: {S.FAILED: S.QUEUED, S.FROZEN: S.QUEUED, S.ABORTED: S.QUEUED},
}


def next_state(state: TaskState, happening: Happening) -> TaskState:
    """Return the state after `happening`; raises RefusedError when it cannot happen in `state`."""
    after = _TABLE[happening].get(state)
    if after is None:
        possible = ", ".join(sorted(s.value for s in _TABLE[happening]))
        raise RefusedError(
            f"'{happening.value}' cannot happen to a task that is {state.value}", hint=f"possible in: {possible}"
        )
    return after


def can_happen(state: TaskState, happening: Happening) -> bool:
    """Return whether `happening` is possible in `state`."""
    return state in _TABLE[happening]
