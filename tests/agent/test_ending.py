"""After a failure: untouched disks restart the machine, touched ones make it hold."""

from __future__ import annotations

import io
from collections.abc import Callable

from agentbench.server import FakeServer
from cloner_agent.console import Console
from cloner_agent.ending import SHOWN_S, Ending
from cloner_core.errors import UnreachableError
from cloner_core.messages import BeatReply, Cause, Failure, Fault, Stage


class _Endless(Exception):
    pass


class _Bench:
    def __init__(self) -> None:
        self.server = FakeServer()
        self.out = io.StringIO()
        self.order = BeatReply()
        self.slept = 0.0
        self.reboots = 0
        self.explained: list[Failure] = []
        self.is_mute = False
        self.at: dict[float, Callable[[], None]] = {}

    def _sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.at.get(self.slept, lambda: None)()
        if self.slept > 200:
            raise _Endless

    def _explain(self, failure: Failure) -> None:
        if self.is_mute:
            raise UnreachableError("gone again")
        self.explained.append(failure)

    def _reboot(self) -> None:
        self.reboots += 1

    def give(self, order: BeatReply) -> None:
        self.order = order

    def end(self, *, is_destroyed: bool) -> None:
        failure = Failure(stage=Stage.MKFS, cause=Cause.TOOL, message="m", hint="h", is_destroyed=is_destroyed)
        ending = Ending(
            self.server,
            Console(self.out),
            order=lambda: self.order,
            reboot=self._reboot,
            explain=self._explain,
            sleep=self._sleep,
        )
        try:
            ending.end(failure)
        except _Endless:
            self.out.write("STILL HOLDING\n")


def test_nothing_destroyed_means_report_show_and_restart() -> None:
    bench = _Bench()
    bench.end(is_destroyed=False)
    assert bench.server.said == ["fail", "rebooting"]
    assert bench.slept == SHOWN_S
    assert bench.reboots == 1
    assert "CLONER HOLD" not in bench.out.getvalue()


def test_after_destruction_the_machine_holds() -> None:
    bench = _Bench()
    bench.end(is_destroyed=True)
    assert bench.reboots == 0
    assert "STILL HOLDING" in bench.out.getvalue()
    assert bench.out.getvalue().count("CLONER HOLD") > 1


def test_an_order_to_retry_ends_the_hold() -> None:
    bench = _Bench()
    bench.at[10.0] = lambda: bench.give(BeatReply(order="retry"))
    bench.end(is_destroyed=True)
    assert bench.reboots == 1
    assert "CLONER REBOOT retry" in bench.out.getvalue()


def test_the_abort_that_caused_the_failure_does_not_end_the_hold() -> None:
    bench = _Bench()
    bench.order = BeatReply(order="abort", reason="task 7 is aborted")
    bench.end(is_destroyed=True)
    assert bench.reboots == 0


def test_an_abort_while_holding_ends_the_hold() -> None:
    bench = _Bench()
    bench.order = BeatReply(order="hold")
    bench.at[5.0] = lambda: bench.give(BeatReply(order="abort", reason="given up"))
    bench.end(is_destroyed=True)
    assert bench.reboots == 1


def test_a_failure_that_could_not_be_told_is_told_later() -> None:
    bench = _Bench()
    bench.server.is_away = True

    def back() -> None:
        bench.server.is_away = False

    bench.at[40.0] = back
    bench.end(is_destroyed=True)
    assert len(bench.server.failures) == 1
    assert bench.explained == bench.server.failures


def test_a_failure_the_server_refuses_to_hear_is_not_repeated() -> None:
    bench = _Bench()
    bench.server.refuse["fail"] = Fault(error="the attempt was replaced")
    bench.end(is_destroyed=True)
    assert bench.server.said == ["fail"]


def test_a_report_that_breaks_in_a_way_nobody_foresaw_does_not_end_the_holding() -> None:
    bench = _Bench()

    def broken(failure: Failure) -> None:
        raise UnicodeEncodeError("utf-8", failure.message, 0, 1, "no")

    bench.server.fail = broken  # type: ignore[method-assign]
    bench.end(is_destroyed=True)
    assert bench.out.getvalue().endswith("STILL HOLDING\n")
    assert bench.reboots == 0


def test_a_failure_is_explained_once_after_it_was_told() -> None:
    bench = _Bench()
    bench.end(is_destroyed=True)
    assert bench.explained == bench.server.failures


def test_an_explanation_that_cannot_be_sent_changes_nothing() -> None:
    bench = _Bench()
    bench.is_mute = True
    bench.end(is_destroyed=False)
    assert bench.server.said == ["fail", "rebooting"]
    assert bench.reboots == 1
