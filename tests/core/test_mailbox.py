"""A mailbox gives the latest whole value, whatever its writer is doing."""

from __future__ import annotations

import multiprocessing

from cloner_core.mailbox import Mailbox
from cloner_core.messages import Progress, Stage


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


def test_no_value_is_seen_half_written() -> None:
    box = Mailbox(Progress, Progress(stage=Stage.MOUNT))
    context = multiprocessing.get_context("fork")
    has_read = context.Event()

    def write() -> None:
        done = 0
        while not has_read.is_set():
            for _ in range(1000):
                done += 1
                box.put(Progress(stage=Stage.RESTORE, done=done, total=done, text=str(done)))

    writer = context.Process(target=write, daemon=True)
    writer.start()
    seen = list[int]()
    while len(set(seen)) < 1000:
        value = box.get()
        assert (value.total, value.text) == (value.done, str(value.done) if value.done else "")
        seen.append(value.done)
    has_read.set()
    writer.join(60)
    assert seen == sorted(seen)
