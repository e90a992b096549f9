"""What an admin is told about nodes that are not well: the failed by cause, model and switch, each group with a remedy.

Pure values and the grouping. Which tasks count is the server's decision: the newest of each node.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from cloner_core.admin.deploying import MAX_NODES
from cloner_core.admin.tasks import TaskState, TaskView
from cloner_core.mending import mending_line
from cloner_core.messages import Cause, Failure, Stage, Strict

_Key = tuple[Cause, str, str, str]  # cause, model, switch, kind of the tasks


class NotWell(Strict, frozen=True):
    """A node whose newest task is failed, frozen or lost."""

    task: TaskView
    model: str  # what the firmware calls the machine (DMI product); "" not known
    switch: str = ""  # switch or relay the machine is behind; "" not known
    has_bundle: bool = False  # the agent sent a bundle: cloner task bundle


class FailureGroup(Strict, frozen=True):
    """Failed tasks of one cause on one model behind one switch, and what mends them."""

    cause: Cause
    stages: tuple[Stage, ...]  # in their order
    model: str
    switch: str
    count: int
    destroyed: int  # of them, how many nodes have lost their old content
    nodes: str  # as a node set
    tasks: tuple[str, ...]
    bundles: tuple[str, ...]  # tasks of the group that have one
    kind: str  # of the tasks: "deploy", "erase"
    message: str  # the most frequent
    hint: str  # the most frequent
    mend: str


class FailuresReport(Strict, frozen=True):
    """Everything that is not well, as node sets where a person decides or waits."""

    groups: tuple[FailureGroup, ...]
    failed: int
    frozen: str  # two machines claimed the task
    frozen_count: int
    lost: str  # no heartbeat; may come back by itself


class RetryRequest(Strict, frozen=True):
    """Queue these failed tasks once more: all of them, or none."""

    tasks: tuple[str, ...]
    limit: int = MAX_NODES  # refused when more tasks are named
    dry_run: bool = False


def report_failures(found: Iterable[NotWell], fold: Callable[[Sequence[str]], str]) -> FailuresReport:
    """Return `found` as groups, the greatest first; `fold` makes a node set of names."""
    members: dict[_Key, list[tuple[NotWell, Failure]]] = defaultdict(list)
    others: dict[TaskState, list[str]] = defaultdict(list)
    for one in found:
        if one.task.state is TaskState.FAILED and one.task.failure is not None:
            members[one.task.failure.cause, one.model, one.switch, one.task.kind].append((one, one.task.failure))
        else:
            others[one.task.state].append(one.task.node)
    groups = [_group(key, of_key, fold) for key, of_key in members.items()]
    return FailuresReport(
        groups=tuple(sorted(groups, key=lambda group: (-group.count, group.cause, group.model, group.switch))),
        failed=sum(group.count for group in groups),
        frozen=fold(others[TaskState.FROZEN]),
        frozen_count=len(others[TaskState.FROZEN]),
        lost=fold(others[TaskState.LOST]),
    )


def _group(
    key: _Key,
    members: Sequence[tuple[NotWell, Failure]],
    fold: Callable[[Sequence[str]], str],
) -> FailureGroup:
    cause, model, switch, kind = key
    told = [failure for _, failure in members]
    stages = tuple(stage for stage in Stage if any(failure.stage is stage for failure in told))
    nodes = fold([one.task.node for one, _ in members])
    return FailureGroup(
        cause=cause,
        stages=stages,
        model=model,
        switch=switch,
        count=len(members),
        destroyed=sum(failure.is_destroyed for failure in told),
        nodes=nodes,
        tasks=tuple(one.task.id for one, _ in members),
        bundles=tuple(one.task.id for one, _ in members if one.has_bundle),
        kind=kind,
        message=_commonest(failure.message for failure in told),
        hint=_commonest(failure.hint for failure in told),
        # What a stage adds is said only where all of the group failed there.
        mend=mending_line(cause, stages[0] if len(stages) == 1 else None, nodes, kind),
    )


def _commonest(texts: Iterable[str]) -> str:
    return Counter(texts).most_common(1)[0][0]
