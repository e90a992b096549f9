"""The queue loses lines rather than time."""

from __future__ import annotations

import logging

from cloner_agent.logqueue import LogQueue


def _record(text: str) -> logging.LogRecord:
    return logging.LogRecord("cloner_agent", logging.WARNING, "", 0, text, None, None)


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
