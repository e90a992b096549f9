"""Failed nodes are grouped by what is wrong and where, so that one line mends a group."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cloner_core.admin.tasks import TaskState, TaskView
from cloner_core.failures import NotWell, report_failures
from cloner_core.messages import Cause, Failure, Stage


def one(
    number: int,
    cause: Cause | None,
    stage: Stage = Stage.PLAN,
    *,
    model: str = "R640",
    switch: str = "",
    state: TaskState = TaskState.FAILED,
    message: str = "m",
) -> NotWell:
    failure = Failure(stage, cause, message, f"hint of {cause}", stage is Stage.RESTORE) if cause else None
    task = TaskView(
        id=str(number),
        revision=1,
        node=f"n{number:02}",
        kind="deploy",
        state=state,
        stage=stage,
        image="golden",
        version=1,
        digest="d",
        layout="l",
        layout_number=1,
        author="a",
        created_s=0.0,
        changed_s=0.0,
        attempts=1,
        progress=None,
        failure=failure,
    )
    return NotWell(task=task, model=model, switch=switch, has_bundle=number % 2 == 0)


def fold(names: Sequence[str]) -> str:
    return "+".join(names)


def test_cause_model_and_switch_make_a_group() -> None:
    found = [
        one(1, Cause.NO_DISK),
        one(2, Cause.NO_DISK),
        one(3, Cause.NO_DISK, model="R650"),
        one(4, Cause.NO_DISK, switch="sw1"),
        one(5, Cause.DISK_IO, Stage.RESTORE),
        one(6, Cause.DISK_IO, Stage.READBACK),
        one(7, Cause.DISK_IO, Stage.RESTORE),
    ]
    report = report_failures(found, fold)
    assert [(group.cause, group.nodes, group.count) for group in report.groups] == [
        (Cause.DISK_IO, "n05+n06+n07", 3),
        (Cause.NO_DISK, "n01+n02", 2),
        (Cause.NO_DISK, "n04", 1),
        (Cause.NO_DISK, "n03", 1),
    ]
    disk_io = report.groups[0]
    assert (disk_io.stages, disk_io.destroyed) == ((Stage.RESTORE, Stage.READBACK), 2)
    assert (disk_io.tasks, disk_io.bundles) == (("5", "6", "7"), ("6",))
    assert disk_io.mend.endswith("cloner task retry --failed --cause disk-io --nodes 'n05+n06+n07'")
    assert report.failed == 7


def test_a_failed_erase_is_never_mended_by_a_deploy() -> None:
    other = one(2, Cause.NO_DISK)
    erase = msgspec.structs.replace(other, task=msgspec.structs.replace(other.task, kind="erase"))
    groups = report_failures([one(1, Cause.NO_DISK), erase], ",".join).groups
    assert [(group.kind, f"cloner {group.kind} " in group.mend) for group in groups] == [
        ("deploy", True),
        ("erase", True),
    ]


def test_what_a_stage_adds_is_said_only_when_all_failed_there() -> None:
    alike = report_failures([one(1, Cause.NO_SPACE, Stage.BOOTFILES)], fold)
    mixed = report_failures([one(1, Cause.NO_SPACE, Stage.BOOTFILES), one(2, Cause.NO_SPACE, Stage.RESTORE)], fold)
    assert "ESP" in alike.groups[0].mend
    assert "ESP" not in mixed.groups[0].mend


def test_the_most_frequent_message_speaks_for_the_group() -> None:
    found = [one(number, Cause.TOOL, message="rare" if number == 1 else "often") for number in (1, 2, 3)]
    assert report_failures(found, fold).groups[0].message == "often"


def test_frozen_and_lost_nodes_are_named_beside_the_groups() -> None:
    found = [one(1, None, state=TaskState.FROZEN), one(2, None, state=TaskState.LOST), one(3, Cause.TOOL)]
    report = report_failures(found, fold)
    assert (report.frozen, report.frozen_count, report.lost, report.failed) == ("n01", 1, "n02", 1)
