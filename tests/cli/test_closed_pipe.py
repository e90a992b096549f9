"""A reader that leaves (`| head`) ends a stream, and work goes on: real pipes, closed on the other side."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack

import pytest

from clibench.desk import Desk
from cloner_cli.main import cli
from cloner_core.errors import ExitStatus, failed_status
from cloner_core.messages import Cause, Failure, Stage
from serverbench.scene import Agent


@pytest.fixture
def one(desk: Desk) -> Desk:
    desk.scene.add_node("n01")
    return desk


def run_unread(desk: Desk, monkeypatch: pytest.MonkeyPatch, words: list[str], streams: tuple[str, ...]) -> object:
    """Run a command line whose `streams` nobody reads; return its exit status."""
    with ExitStack() as stack, monkeypatch.context() as patched:
        for name in streams:
            read, write = os.pipe()
            os.close(read)
            patched.setattr(sys, name, stack.enter_context(os.fdopen(write, "w")))
        with pytest.raises(SystemExit) as ended:
            cli.main(words, obj=desk.invocation())
    return ended.value.code


STDOUT, BOTH = ("stdout",), ("stdout", "stderr")
LINES = (
    "events",
    "events --follow",
    "events --follow --json",
    "node list --json",
    "--help",
    "node add --help",
    "--version",
)


@pytest.mark.parametrize("streams", [STDOUT, BOTH], ids=["stdout", "both"])
def test_what_nobody_reads_to_its_end_is_no_failure(
    one: Desk, monkeypatch: pytest.MonkeyPatch, streams: tuple[str, ...]
) -> None:
    ended = {line: run_unread(one, monkeypatch, line.split(), streams) for line in LINES}
    assert ended == dict.fromkeys(LINES, 0)


@pytest.mark.parametrize("streams", [STDOUT, BOTH], ids=["stdout", "both"])
def test_a_change_is_made_and_reported_though_nobody_reads(
    one: Desk, monkeypatch: pytest.MonkeyPatch, streams: tuple[str, ...]
) -> None:
    assert run_unread(one, monkeypatch, ["deploy", "-n", "n01", "--yes"], streams) == 0
    assert one.scene.netboot("n01") == "cloner"


@pytest.mark.parametrize("streams", [STDOUT, BOTH], ids=["stdout", "both"])
def test_waiting_that_nobody_reads_ends_with_the_truth(
    one: Desk, monkeypatch: pytest.MonkeyPatch, streams: tuple[str, ...]
) -> None:
    agent = Agent(one.scene)

    def world(turn: int) -> None:
        if turn == 1:
            agent.hello()
            agent.fail(Failure(Stage.PLAN, Cause.DISK_TOO_SMALL, "8 GiB", "a bigger disk", False))

    one.on_sleep = world
    assert run_unread(one, monkeypatch, ["deploy", "-n", "n01", "--yes", "--wait"], streams) == failed_status(1)


@pytest.mark.parametrize("words", [["node", "show", "n77"], ["node", "show", "n77", "--json"]], ids=["text", "json"])
def test_a_fault_that_nobody_reads_keeps_its_status(
    one: Desk, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    assert run_unread(one, monkeypatch, words, BOTH) == ExitStatus.NOT_FOUND
    assert run_unread(one, monkeypatch, ["node"], BOTH) == ExitStatus.USAGE
