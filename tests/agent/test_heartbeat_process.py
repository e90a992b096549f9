"""The heartbeat as a real process: beside the worker, and after the worker was killed."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from pathlib import Path

import msgspec
import pytest

from agentbench.server import FakeServer
from cloner_agent.heartbeat import Heartbeat
from cloner_agent.logqueue import LogQueue
from cloner_core.messages import Beat, BeatReply, Cause, Failure, Progress, Stage

pytestmark = pytest.mark.root
_WAIT_S = 20.0


class _Diary(FakeServer):
    """Writes what it hears into files, which other processes can see."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory

    def beat(self, beat: Beat) -> BeatReply:
        with (self._directory / "beats").open("ab") as file:
            file.write(msgspec.json.encode(beat) + b"\n")
        return BeatReply(order="abort", reason="enough")

    def fail(self, failure: Failure) -> None:
        part = self._directory / "part"
        part.write_bytes(msgspec.json.encode(failure))
        part.rename(self._directory / "failure")


def _wait_for(path: Path) -> bytes:
    deadline = time.monotonic() + _WAIT_S
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return path.read_bytes()


def test_progress_and_log_go_out_and_orders_come_back(tmp_path: Path) -> None:
    logs = LogQueue()
    heartbeat = Heartbeat(_Diary(tmp_path), 60.0, logs)
    heartbeat.start()
    try:
        _wait_for(tmp_path / "beats")
        logs.emit(logging.LogRecord("x", logging.INFO, "", 0, "a line", None, None))
        heartbeat.show(Progress(stage=Stage.RESTORE, done=5))  # a new stage does not wait for the minute to pass
        deadline = time.monotonic() + _WAIT_S
        while heartbeat.order().order == "go" and time.monotonic() < deadline:
            time.sleep(0.05)
        assert heartbeat.order() == BeatReply(order="abort", reason="enough")
    finally:
        heartbeat.stop()
    beats = [msgspec.json.decode(line, type=Beat) for line in (tmp_path / "beats").read_bytes().splitlines()]
    assert beats[-1].progress == Progress(stage=Stage.RESTORE, done=5)
    assert [line.text for beat in beats for line in beat.log] == ["a line"]


def _work_and_die(directory: Path) -> None:
    heartbeat = Heartbeat(_Diary(directory), 60.0, LogQueue())
    heartbeat.start()
    heartbeat.show(Progress(stage=Stage.RESTORE))
    _wait_for(directory / "beats")
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_is_reported_with_its_stage(tmp_path: Path) -> None:
    worker = multiprocessing.get_context("fork").Process(target=_work_and_die, args=(tmp_path,))
    worker.start()
    failure = msgspec.json.decode(_wait_for(tmp_path / "failure"), type=Failure)
    worker.join()
    assert (failure.stage, failure.cause, failure.is_destroyed) == (Stage.RESTORE, Cause.INTERNAL, True)
