"""The mailbox keeps the latest whole value; the queue loses lines rather than time."""

from __future__ import annotations

import logging

from cloner_agent.mailbox import LogQueue, Mailbox
from cloner_core.messages import Progress, Stage


def _record(text: str) -> logging.LogRecord:
    return logging.LogRecord("cloner_agent", logging.WARNING, "", 0, text, None, None)


def test_the_latest_value_is_read() -> None:
    box = Mailbox(Progress, Progress(stage=Stage.HELLO))
    for done in range(5):
        box.put(Progress(stage=Stage.RESTORE, done=done, total=9, unit="bytes"))
    assert box.get() == Progress(stage=Stage.RESTORE, done=4, total=9, unit="bytes")


def test_a_value_that_does_not_fit_leaves_the_former_one() -> None:
    box = Mailbox(Progress, Progress(stage=Stage.HELLO), size_bytes=256)
    assert not box.put(Progress(stage=Stage.MKFS, text="x" * 1000))
    assert box.get().stage is Stage.HELLO


def test_a_writer_that_died_in_the_middle_leaves_the_last_whole_value() -> None:
    box = Mailbox(Progress, Progress(stage=Stage.HELLO))
    box.put(Progress(stage=Stage.MOUNT))
    assert box.get().stage is Stage.MOUNT
    box._map[0] |= 1  # the sequence number of a write that never ended
    box._map[12:40] = b"\xff" * 28
    assert box.get().stage is Stage.MOUNT


def test_who_writes_after_a_writer_that_died_in_the_middle_is_read() -> None:
    box = Mailbox(Progress, Progress(stage=Stage.HELLO))
    for _ in range(2):
        box._map[0] |= 1
        before = box._map[0]
        box.put(Progress(stage=Stage.MOUNT))
        assert box._map[0] == before + 1
        assert box.get().stage is Stage.MOUNT


def test_log_lines_come_out_in_order_and_at_most_as_many_as_asked() -> None:
    queue = LogQueue()
    for number in range(5):
        queue.emit(_record(f"line {number}"))
    assert [line.text for line in queue.drain(3)] == ["line 0", "line 1", "line 2"]
    assert [(line.level, line.text) for line in queue.drain(3)] == [("warning", "line 3"), ("warning", "line 4")]
    assert queue.drain(3) == []


def test_a_full_queue_drops_lines_and_says_how_many() -> None:
    queue = LogQueue()
    sent = 2000
    for _ in range(sent):
        queue.emit(_record("x" * 2900))
    kept = len(queue.drain(sent))
    assert 0 < kept < sent
    queue.emit(_record("after"))
    (line,) = queue.drain(1)
    assert line.text == f"after [{sent - kept} lines before this one were dropped]"


def test_a_long_line_of_any_text_is_cut_and_stays_text() -> None:
    queue = LogQueue()
    queue.emit(_record("ü" * 5000))
    (line,) = queue.drain(1)
    assert set(line.text) == {"ü"}
    assert len(line.text.encode()) <= 3000
