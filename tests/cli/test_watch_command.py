"""Watching shows what lives, what is wrong first, until all has ended; its exit status tells how many are not done."""

from __future__ import annotations

import io
import json

import pytest

from clibench.desk import Desk
from cloner_cli.watch import counts_line, live_view, worst_first
from cloner_core.admin.tasks import TaskState, TaskView
from cloner_core.errors import FAILED_MOST, ExitStatus, failed_status
from cloner_core.messages import Cause, Failure, Stage
from serverbench.scene import Agent, facts

FAILURE = Failure(Stage.RESTORE, Cause.NETWORK, "gone", "look", True)


@pytest.fixture
def two(desk: Desk) -> Desk:
    for number in (1, 2):
        desk.scene.add_node(f"n{number:02}", f"52:54:00:00:00:{number:02}")
    desk.scene.arm("n01", "n02")
    return desk


def test_nothing_to_watch_ends_at_once(desk: Desk) -> None:
    result = desk.run("watch")
    assert (result.exit_code, result.stdout, desk.sleeps) == (0, "", 0)
    assert "no task is live" in result.stderr


def test_it_ends_when_all_have_ended_and_counts_what_is_not_done(two: Desk) -> None:
    first, second = Agent(two.scene), Agent(two.scene, facts("52:54:00:00:00:02"))

    def world(turn: int) -> None:
        two.transport.is_away = 3 < turn < 6
        if turn == 2:
            first.hello()
        if turn == 7:
            first.fail(FAILURE)
        if turn == 8:
            second.hello(two.scene.mint("n02"))
        if turn == 9:
            second.fail(FAILURE)

    two.on_sleep = world
    result = two.run("watch")
    assert result.exit_code == 22
    lines = result.stdout.splitlines()
    assert lines[:2] == [
        "n01  queued, waiting for the node to netboot",
        "n02  queued, waiting for the node to netboot",
    ]
    assert "n01  failed in restore (network)" in lines
    assert "2 of 2 tasks did not end well" in result.stderr
    assert "cloner failures" in result.stderr


def test_only_the_nodes_of_the_set_are_watched(two: Desk) -> None:
    def world(turn: int) -> None:
        if turn == 1:
            two.scene.admin("POST", "/tasks/1/abort")

    two.on_sleep = world
    result = two.run("watch", "--nodes", "n01", "--json")
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(task["node"], task["state"]) for task in told] == [("n01", "queued"), ("n01", "aborted")]
    assert result.exit_code == 21
    assert two.refused("watch", "--nodes", "n09").exit_code == ExitStatus.NOT_FOUND


def test_following_goes_on_with_tasks_to_come(desk: Desk) -> None:
    def world(turn: int) -> None:
        if turn == 2:
            desk.scene.add_node("n01")
            desk.scene.arm()
        if turn == 4:
            raise KeyboardInterrupt

    desk.on_sleep = world
    result = desk.run("watch", "--follow")
    assert result.exit_code == ExitStatus.INTERRUPTED
    assert result.stdout == "n01  queued, waiting for the node to netboot\n"


def test_a_server_that_stays_away_ends_the_watching(two: Desk) -> None:
    def world(turn: int) -> None:
        two.transport.is_away = turn > 3

    two.on_sleep = world
    assert two.run("watch").exit_code == ExitStatus.UNREACHABLE


def test_a_terminal_shows_counts_and_what_is_wrong_first(two: Desk) -> None:
    from rich.console import Console

    agent = Agent(two.scene, facts("52:54:00:00:00:02"))
    agent.hello(two.scene.mint("n02"))
    agent.fail(FAILURE)
    tasks = worst_first([two.scene.task("1"), two.scene.task("2")])
    out = io.StringIO()
    Console(file=out, width=100).print(live_view(tasks))
    lines = out.getvalue().splitlines()
    assert lines[0].strip() == "1 failed, 1 queued"
    assert lines[1].startswith("n02")
    assert lines[2].startswith("n01")


def test_every_state_has_its_place_in_the_order(two: Desk) -> None:
    import msgspec

    tasks: list[TaskView] = [msgspec.structs.replace(two.scene.task("1"), state=state) for state in TaskState]
    ordered = worst_first(tasks)
    assert (ordered[0].state, ordered[-1].state) == (TaskState.FAILED, TaskState.DONE)
    assert counts_line(tasks).count("1 ") == len(TaskState)


@pytest.mark.parametrize(("count", "status"), [(0, 0), (1, 21), (12, 32), (100, 120), (400, 120)])
def test_the_exit_status_tells_how_many_failed(count: int, status: int) -> None:
    assert failed_status(count) == status
    assert failed_status(count) <= 20 + FAILED_MOST < 126
