"""Progress of long work: drawn on a terminal, told now and then elsewhere, and never from a thread of its own."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest

from cloner_cli.invocation import Invocation, World
from cloner_cli.showing import showing


@dataclass
class Clock:
    """A clock that is set."""

    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize(("is_live", "every_s"), [(True, 0.1), (False, 10.0)])
def test_work_is_told_of_now_and_then_and_on_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, is_live: bool, every_s: float
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich draws on what it takes for a terminal
    monkeypatch.setenv("TERM", "xterm")
    clock = Clock()
    run = Invocation(world=World(monotonic=clock, is_live=lambda: is_live))
    with showing(run, "extracting") as show:
        show("too early")
        clock.now_s += every_s
        show("[bold]1 of 9")
        show("too early again")
        clock.now_s += every_s
        show("2 of 9")
    told = capsys.readouterr()
    assert told.out == ""
    assert "extracting: [bold]1 of 9" in told.err
    assert "extracting: 2 of 9" in told.err
    assert "too early" not in told.err


@pytest.mark.parametrize("is_live", [True, False])
def test_no_thread_runs_beside_work_that_may_fork(is_live: bool) -> None:
    before = set(threading.enumerate())
    with showing(Invocation(world=World(is_live=lambda: is_live)), "extracting") as show:
        show("1 of 9")
        assert set(threading.enumerate()) == before
