"""The board: one process writes it, others read it, and what is shown of the stages adds up."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass

import pytest

from agentbench.scene import layout, task
from cloner_agent.board import Board
from cloner_agent.console import Console
from cloner_agent.reporter import Reporter
from cloner_agent.screens import SMALL_BYTES, may_open
from cloner_core.messages import DEPLOY_STAGES, Cause, Failure, Progress, Stage
from cloner_core.screen import LOG_LINES, Link, Screen

LINKS = (Link("eth0", True, ("10.0.0.5",)),)
FAILURE = Failure(stage=Stage.MKFS, cause=Cause.DISK_IO, message="it broke", hint="mend it", is_destroyed=True)


@dataclass
class Clock:
    now_s: float = 50.0

    def __call__(self) -> float:
        return self.now_s


def board_of(clock: Clock) -> Board:
    return Board(clock, lambda: LINKS)


def test_stages_are_shown_with_their_seconds_also_when_one_comes_again() -> None:
    clock = Clock()
    board = board_of(clock)
    for stage, seconds in ((Stage.VERIFY, 3), (Stage.PLAN, 2), (Stage.MKFS, 1), (Stage.PLAN, 4), (Stage.MKFS, 1)):
        clock.now_s += seconds
        board.stage(stage)
    seen = board.get()
    assert {one.stage: one.seconds for one in seen.done} == {Stage.HELLO: 3, Stage.VERIFY: 2, Stage.PLAN: 2}
    assert clock.now_s - seen.stage_s == 4, "what the stage had taken before counts on"


def test_what_the_console_is_told_is_on_the_board_and_in_the_text_of_a_bundle() -> None:
    clock, out = Clock(), io.StringIO()
    board = board_of(clock)
    console = Console(out, clock, board)
    reporter = Reporter(console, clock=clock)
    board.task(task(layout()))
    reporter.enter(Stage.RESTORE)
    reporter.tick(10, 40, "bytes", "pack 1")
    console.log("first\nsecond \x1b[2J")
    console.failed(FAILURE)
    console.hold()
    text = board.text()
    for word in (task(layout()).node, "! mkfs", "FAILED in mkfs: disk-io", "hint: mend it", "holding", "second ?[2J"):
        assert word in text
    assert "\x1b" not in text + out.getvalue()
    assert "CLONER STAGE restore\n" in out.getvalue()
    assert "CLONER HOLD\n" in out.getvalue()
    console.reboot("retry")
    assert "restarting: retry" in board.text()


def test_the_serial_line_gets_the_screen_in_short_at_most_every_ten_seconds() -> None:
    clock, out = Clock(), io.StringIO()
    console = Console(out, clock, board_of(clock))
    for stage in DEPLOY_STAGES:
        console.stage(stage)
        clock.now_s += 4
    lines = out.getvalue().splitlines()
    assert [line for line in lines if line.startswith("CLONER")] == [f"CLONER STAGE {stage}" for stage in DEPLOY_STAGES]
    assert sum("this machine" in line for line in lines) == 6


def test_the_log_keeps_its_last_lines_and_long_ones_are_cut() -> None:
    board = board_of(Clock())
    board.log("\n".join(f"line {number} {'x' * 5000}" for number in range(500)))
    seen = board.get().log
    assert len(seen) == LOG_LINES
    assert seen[-1].startswith("line 499")
    assert max(map(len, seen)) <= 300


def test_a_failure_of_any_length_is_shown() -> None:
    board = board_of(Clock())
    for _ in range(LOG_LINES):
        board.log("\U0001f600" * 5000)
    board.failed(Failure(Stage.MKFS, Cause.TOOL, "\U0001f600" * 100_000, "h" * 100_000, is_destroyed=False))
    assert board.get().failure is not None


def test_another_process_reads_the_board_and_cannot_write_it() -> None:
    board = board_of(Clock())
    board.log("ours")
    child = os.fork()
    if child == 0:
        is_seen = board.get().log == ("ours",)
        board.log("theirs")
        os._exit(0 if is_seen else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert board.get().log == ("ours",)


def test_progress_comes_at_most_five_times_a_second_and_the_last_always() -> None:
    clock = Clock()
    board = board_of(clock)
    board.progress(Progress(stage=Stage.RESTORE, done=1, total=9))
    board.progress(Progress(stage=Stage.RESTORE, done=2, total=9))
    assert (shown := board.get().progress) is not None
    assert shown.done == 1
    board.progress(Progress(stage=Stage.RESTORE, done=9, total=9))
    assert (shown := board.get().progress) is not None
    assert shown.done == 9


@pytest.mark.parametrize(
    ("memory_bytes", "screen", "may"),
    [
        (SMALL_BYTES, Screen(), True),
        (SMALL_BYTES - 1, Screen(stage=Stage.RESTORE), False),
        (SMALL_BYTES - 1, Screen(stage=Stage.READBACK), True),
        (SMALL_BYTES - 1, Screen(stage=Stage.MKFS, failure=FAILURE), True),
    ],
    ids=["large", "small, restoring", "small, restored", "small, failed"],
)
def test_a_small_machine_opens_its_console_late(memory_bytes: int, screen: Screen, may: bool) -> None:
    assert may_open(screen, memory_bytes) is may
