"""The heartbeat says what happens, brings orders, and reports a death."""

from __future__ import annotations

import logging

from agentbench.server import FakeServer
from cloner_agent.heartbeat import Pulse, live
from cloner_agent.logqueue import LogQueue
from cloner_core.lldp import Neighbor
from cloner_core.mailbox import Mailbox
from cloner_core.messages import BeatReply, Cause, Failure, Fault, Progress, Stage


class _Bench:
    def __init__(self) -> None:
        self.server = FakeServer()
        self.progress = Mailbox(Progress, Progress(stage=Stage.HELLO))
        self.orders = Mailbox(BeatReply, BeatReply())
        self.logs = LogQueue()
        self.neighbors: tuple[Neighbor, ...] = ()
        self.pulse = Pulse(self.server, self.progress, self.orders, self.logs, neighbors=lambda: self.neighbors)
        self.now = 0.0

    def log(self, text: str) -> None:
        self.logs.emit(logging.LogRecord("x", logging.INFO, "", 0, text, None, None))

    def live(self, seconds: float, *, orphan_at: float = 1e9) -> None:
        def sleep(duration: float) -> None:
            self.now += duration

        live(
            self.pulse,
            every_s=5.0,
            is_stopped=lambda: self.now >= seconds,
            is_orphan=lambda: self.now >= orphan_at,
            stage=lambda: self.progress.get().stage,
            sleep=sleep,
            clock=lambda: self.now,
        )


def test_a_beat_carries_the_latest_progress_and_the_log() -> None:
    bench = _Bench()
    bench.progress.put(Progress(stage=Stage.RESTORE, done=7))
    bench.log("one")
    bench.pulse.beat()
    assert bench.server.beats[0].progress.done == 7
    assert [line.text for line in bench.server.beats[0].log] == ["one"]


def test_lines_of_a_beat_that_was_not_heard_come_with_the_next() -> None:
    bench = _Bench()
    bench.log("one")
    bench.server.is_away = True
    bench.pulse.beat()
    bench.server.is_away = False
    bench.log("two")
    bench.pulse.beat()
    bench.pulse.beat()
    assert [[line.text for line in beat.log] for beat in bench.server.beats] == [["one", "two"], []]


def test_a_switch_is_told_until_it_was_heard_and_then_no_more() -> None:
    bench = _Bench()
    bench.pulse.beat()
    neighbor = Neighbor("eth0", "52:54:00:00:00:01", "sw1", "c", "p")
    bench.neighbors = (neighbor,)
    bench.server.is_away = True
    bench.pulse.beat()
    bench.server.is_away = False
    bench.pulse.beat()
    bench.pulse.beat()
    assert [beat.neighbors for beat in bench.server.beats] == [(), (neighbor,), ()]


def test_an_order_reaches_the_worker() -> None:
    bench = _Bench()
    bench.server.reply = BeatReply(order="abort", reason="admin")
    bench.pulse.beat()
    assert bench.orders.get() == BeatReply(order="abort", reason="admin")


def test_a_refused_beat_means_that_the_attempt_is_over() -> None:
    bench = _Bench()
    bench.server.refuse["beat"] = Fault(error="the attempt was replaced")
    bench.pulse.beat()
    assert bench.orders.get() == BeatReply(order="hold", reason="the attempt was replaced")


def test_a_server_that_is_away_gives_no_order() -> None:
    bench = _Bench()
    bench.server.is_away = True
    bench.pulse.beat()
    assert bench.orders.get().order == "go"


def test_it_beats_every_few_seconds_and_once_more_at_the_end() -> None:
    bench = _Bench()
    bench.live(20.0)
    assert len(bench.server.beats) == 5


def test_a_new_stage_is_told_at_once() -> None:
    bench = _Bench()

    class Advancing(Mailbox[Progress]):
        def get(self) -> Progress:
            return Progress(stage=Stage.RESTORE if bench.now >= 1.0 else Stage.MOUNT)

    bench.progress = Advancing(Progress, Progress(stage=Stage.HELLO))
    bench.pulse = Pulse(bench.server, bench.progress, bench.orders, bench.logs)
    bench.live(3.0)
    assert [beat.progress.stage for beat in bench.server.beats] == [Stage.MOUNT, Stage.RESTORE, Stage.RESTORE]


def test_the_death_of_the_worker_is_reported_with_what_it_destroyed() -> None:
    bench = _Bench()
    bench.progress.put(Progress(stage=Stage.RESTORE))
    bench.live(100.0, orphan_at=2.0)
    (failure,) = bench.server.failures
    assert (failure.stage, failure.cause, failure.is_destroyed) == (Stage.RESTORE, Cause.INTERNAL, True)


def test_a_death_is_explained_after_it_was_told() -> None:
    bench = _Bench()
    explained: list[Failure] = []
    bench.pulse = Pulse(bench.server, bench.progress, bench.orders, bench.logs, explain=explained.append)
    bench.live(100.0, orphan_at=2.0)
    assert explained == bench.server.failures
