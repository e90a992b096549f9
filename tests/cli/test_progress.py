"""How tasks stand: amounts, rates, time left; lines only when there is something new to say."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cloner_cli.progress import Ticker, amount, has_ended, share, standing, why_failed
from cloner_cli.waiting import live_table
from cloner_core.admin.tasks import TaskState, TaskView
from cloner_core.messages import Cause, Failure, Progress, Stage

RESTORE = Progress(Stage.RESTORE, done=120 << 20, total=1 << 30, unit="bytes", rate_per_s=float(64 << 20))


def task(state: TaskState = TaskState.RUNNING, **changes: Any) -> TaskView:
    view = TaskView(
        id="1",
        revision=1,
        node="n01",
        kind="deploy",
        state=state,
        stage="restore" if state is TaskState.RUNNING else "",
        image="golden",
        version=1,
        digest="",
        layout="simple",
        layout_number=1,
        author="root",
        created_s=0.0,
        changed_s=0.0,
        attempts=1,
        progress=RESTORE if state is TaskState.RUNNING else None,
        failure=None,
    )
    return msgspec.structs.replace(view, **changes)


def test_bytes_have_amount_rate_and_time_left() -> None:
    assert amount(RESTORE) == "120.0 MiB of 1.0 GiB, 64.0 MiB/s, 14 s left"


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (Progress(Stage.MKFS, done=4, total=11, text="format root (ext4)"), "4 of 11, format root (ext4)"),
        (Progress(Stage.RESTORE, done=5, unit="bytes", rate_per_s=1.0), "5 B, 1 B/s"),
        (Progress(Stage.RESTORE, done=9, total=9, unit="bytes", rate_per_s=1.0), "9 B of 9 B, 1 B/s"),
        (Progress(Stage.RESTORE, done=0, total=9, unit="bytes", rate_per_s=0.0), "0 B of 9 B"),
        (Progress(Stage.PLAN), ""),
        (Progress(Stage.PLAN, text="a\x1b[2Jb"), "a\\x1b[2Jb"),
    ],
)
def test_what_is_not_known_is_not_told(told: Progress, text: str) -> None:
    assert amount(told) == text


def test_progress_of_a_former_stage_is_not_shown_for_the_next() -> None:
    assert standing(task(stage="readback")) == "running  readback"


@pytest.mark.parametrize(("done", "total", "part"), [(0, 0, None), (5, 10, 0.5), (11, 10, 1.0), (-1, 10, 0.0)])
def test_the_share_stays_between_nothing_and_all(done: int, total: int, part: float | None) -> None:
    assert share(task(progress=Progress(Stage.RESTORE, done=done, total=total))) == part


@pytest.mark.parametrize("state", list(TaskState))
def test_waiting_ends_exactly_where_nothing_more_happens_by_itself(state: TaskState) -> None:
    ended = {TaskState.DONE, TaskState.FAILED, TaskState.ABORTED, TaskState.FROZEN}
    assert has_ended(task(state)) == (state in ended)
    assert standing(task(state)).startswith(state.value)


def test_a_line_is_said_at_each_change_and_every_ten_seconds() -> None:
    ticker = Ticker()
    said = []
    for second in range(31):
        progress = msgspec.structs.replace(RESTORE, done=second)
        stage = "restore" if second < 12 else "readback"
        said.append(len(ticker.lines([task(stage=stage, progress=progress)], float(second))))
    # at 0 (new), 10 (ten seconds), 12 (next stage); then nothing new is known of that stage
    assert [second for second, count in enumerate(said) if count] == [0, 10, 12]


def test_nothing_is_said_twice_while_nothing_changes() -> None:
    ticker = Ticker()
    assert [len(ticker.lines([task(TaskState.QUEUED)], float(s))) for s in range(0, 60, 5)] == [1, *[0] * 11]


@pytest.mark.parametrize(("is_destroyed", "told"), [(True, "old content is lost"), (False, "not touched")])
def test_a_failure_tells_what_became_of_the_disks(is_destroyed: bool, told: str) -> None:
    failure = Failure(Stage.MKFS, Cause.TOOL, "mkfs failed", "look", is_destroyed)
    text = why_failed(task(TaskState.FAILED, failure=failure))
    assert "stage mkfs, cause tool: mkfs failed" in text
    assert told in text
    assert "hint: look" in text


def test_a_terminal_shows_a_bar_and_takes_no_markup_from_strangers() -> None:
    from io import StringIO

    from rich.console import Console

    told = msgspec.structs.replace(RESTORE, text="[red]x[/red]\x1b[2J")
    out = StringIO()
    Console(file=out, width=160).print(live_table([task(progress=told), task(TaskState.QUEUED, node="n02")]))
    first, second = out.getvalue().splitlines()
    assert "\u2501" in first
    assert "120.0 MiB of 1.0 GiB" in first
    assert "[red]x[/red]\\x1b[2J" in first
    assert "n02" in second
    assert "\u2501" not in second
