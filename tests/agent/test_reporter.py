"""Stages report through one place, and orders of the server reach them there."""

from __future__ import annotations

import io
from typing import Literal

import msgspec
import pytest

from cloner_agent.console import Console
from cloner_agent.failures import AbortError, StageError
from cloner_agent.reporter import Reporter
from cloner_core.messages import BeatReply, Cause, Progress, Stage


class _Bench:
    def __init__(self) -> None:
        self.now = 0.0
        self.shown: list[Progress] = []
        self.reply = BeatReply()
        self.reporter = Reporter(
            Console(io.StringIO()), show=self.shown.append, order=lambda: self.reply, clock=lambda: self.now
        )


def test_the_seconds_of_each_stage_are_kept_in_order() -> None:
    bench = _Bench()
    for stage, seconds in ((Stage.VERIFY, 2.0), (Stage.PLAN, 3.0), (Stage.PLAN, 1.0)):
        bench.reporter.enter(stage)
        bench.now += seconds
    assert [(time.stage, time.seconds) for time in bench.reporter.times()] == [
        (Stage.HELLO, 0.0),
        (Stage.VERIFY, 2.0),
        (Stage.PLAN, 4.0),
    ]


def test_the_rate_is_of_the_last_seconds() -> None:
    bench = _Bench()
    bench.reporter.enter(Stage.RESTORE)
    for second in range(20):
        bench.now = float(second)
        rate = 1000 if second < 10 else 10
        bench.reporter.tick((bench.shown[-1].done if bench.shown else 0) + rate, 0, "bytes")
    assert bench.shown[-1].rate_per_s == pytest.approx(10, rel=0.5)


@pytest.mark.parametrize("order", ["abort", "retry"])
def test_an_order_to_abort_or_to_begin_anew_stops_the_stage(order: Literal["abort", "retry"]) -> None:
    bench = _Bench()
    bench.reply = BeatReply(order=order, reason="an admin said so")
    with pytest.raises(AbortError, match="an admin said so"):
        bench.reporter.tick(1, 2)


def test_an_attempt_that_was_replaced_stops_as_refused() -> None:
    bench = _Bench()
    bench.reply = BeatReply(order="hold", reason="revoked")
    with pytest.raises(StageError) as caught:
        bench.reporter.check()
    assert caught.value.cause is Cause.REFUSED


def test_after_the_commit_no_order_stops_the_last_steps() -> None:
    bench = _Bench()
    bench.reporter.commit()
    bench.reply = BeatReply(order="abort")
    bench.reporter.tick(1, 2)
    assert bench.shown[-1].done == 1


def test_what_a_stage_says_of_a_name_that_is_no_utf8_can_be_sent() -> None:
    bench = _Bench()
    name = b"M\xfcller".decode(errors="surrogateescape")
    bench.reporter.tick(1, 2, text=name)
    bench.reporter.note(name)
    assert msgspec.json.encode((bench.shown, bench.reporter.notes))
