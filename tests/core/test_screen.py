"""The screen of a node: golden pictures, bounds whatever is asked, and nothing a terminal obeys."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloner_core.messages import Cause, Failure, Progress, Stage, StageTime
from cloner_core.screen import HEIGHTS, WIDTHS, Link, Screen, compact, redrawn, render

GOLDEN = Path(__file__).parent / "golden"
LINKS = (Link("eth0", True, ("10.77.0.101", "2001:db8::5")), Link("eth1", False))
FOOT = "q or Ctrl-C ends this view"
BEFORE = tuple(
    StageTime(stage=stage, seconds=seconds)
    for stage, seconds in (
        (Stage.HELLO, 2.1),
        (Stage.VERIFY, 4.4),
        (Stage.PLAN, 0.3),
        (Stage.GUARD, 1.2),
        (Stage.PARTITION, 2.0),
        (Stage.MKFS, 3.6),
        (Stage.MOUNT, 0.1),
    )
)
WORKING = Screen(
    started_s=100.0,
    stage_s=114.0,
    node="node01",
    image="debian:3",
    layout="one-disk",
    task="17",
    attempt="1",
    server="10.77.0.1:8443",
    stage=Stage.RESTORE,
    done=BEFORE,
    progress=Progress(
        stage=Stage.RESTORE, done=188743680, total=419430400, unit="bytes", rate_per_s=12.3e6, text="pack 45 of 100"
    ),
    log=("step 9 of 21: restore the tree", "run: mount -o ro /dev/vda3 /mnt", "caf\u00e9 is one column wide"),
)
FAILURE = Failure(
    stage=Stage.RESTORE,
    cause=Cause.DISK_IO,
    message="[Errno 5] Input/output error: '/mnt/usr/lib/x86_64-linux-gnu/libc.so.6' on /dev/vda3 at 1234567",
    hint="replace the disk; its SMART data and the kernel's log name the sector",
    is_destroyed=True,
)
HOLDING = msgspec.structs.replace(WORKING, failure=FAILURE, doing="holding", ended_s=131.0)
PICTURES = {
    "hello": (Screen(started_s=100.0, stage_s=100.0), (), 80, 24),
    "working": (WORKING, LINKS, 80, 24),
    "working-wide": (WORKING, LINKS, 160, 50),
    "working-small": (WORKING, LINKS, 40, 12),
    "holding": (HOLDING, LINKS, 80, 24),
    "holding-small": (HOLDING, LINKS, 40, 10),
}


def lines_of(name: str) -> tuple[str, ...]:
    screen, links, width, height = PICTURES[name]
    return render(screen, links, now_s=125.0, width=width, height=height, foot=FOOT)


@pytest.mark.parametrize("name", PICTURES)
def test_the_screen_is_as_reviewed(name: str) -> None:
    golden = GOLDEN / f"screen-{name}.txt"
    assert "\n".join(lines_of(name)) + "\n" == golden.read_text()


def test_the_picture_tells_all_that_a_person_needs() -> None:
    text = "\n".join(lines_of("working"))
    for word in (
        "node01",
        "debian:3",
        "task 17, attempt 1",
        "> restore",
        "+ mkfs 3 s",
        "45 %",
        "12.3 MB/s",
        "18 s left",
    ):
        assert word in text
    for word in ("10.77.0.101", "eth1 NO LINK", "its old content is being replaced", "step 9 of 21"):
        assert word in text
    held = "\n".join(lines_of("holding"))
    for word in ("FAILED in restore: disk-io", "old content of the disk is lost", "hint: replace the disk", "holding"):
        assert word in held


def test_the_hint_stays_however_long_the_message_is() -> None:
    failure = msgspec.structs.replace(FAILURE, message="long " * 2000)
    screen = msgspec.structs.replace(HOLDING, failure=failure)
    assert "hint: replace" in "\n".join(render(screen, LINKS, now_s=1.0, width=80, height=24))


def test_clocks_stand_still_after_the_end() -> None:
    first, later = (render(HOLDING, LINKS, now_s=now, width=80, height=24) for now in (131.0, 9000.0))
    assert first == later


TEXTS = st.text(max_size=60)


@given(
    texts=st.lists(TEXTS, min_size=8, max_size=8),
    log=st.lists(TEXTS, max_size=5),
    width=st.integers(-5, 2**32),
    height=st.integers(-5, 2**32),
    stage=st.sampled_from(Stage),
    is_failed=st.booleans(),
    figures=st.tuples(st.integers(-5, 2**62), st.integers(-5, 2**62), st.floats(), st.floats(), st.floats()),
)
@settings(max_examples=30, deadline=None)
def test_no_screen_is_larger_than_asked_or_holds_what_a_terminal_obeys(
    texts: list[str],
    log: list[str],
    width: int,
    height: int,
    stage: Stage,
    is_failed: bool,
    figures: tuple[int, int, float, float, float],
) -> None:
    done, total, rate, started_s, now_s = figures
    node, image, layout, task, server, text, message, address = texts
    screen = Screen(
        started_s=started_s,
        node=node,
        image=image,
        layout=layout,
        task=task,
        server=server,
        why=text,
        stage=stage,
        progress=Progress(stage=stage, done=done, total=total, unit="bytes", rate_per_s=rate, text=text),
        failure=Failure(stage, Cause.TOOL, message, text, is_destroyed=True) if is_failed else None,
        log=tuple(log),
    )
    links = (Link(text, True, (address,)), Link(address, False))
    lines = render(screen, links, now_s=now_s, width=width, height=height, foot=FOOT)
    assert 1 <= len(lines) <= max(height, HEIGHTS[0])
    assert len(lines) <= HEIGHTS[1]
    assert all(len(line) <= min(max(width, WIDTHS[0]), WIDTHS[1]) for line in lines)
    for line in (*lines, *compact(screen, links, now_s=now_s)):
        assert all(c.isprintable() and unicodedata.east_asian_width(c) not in "WF" for c in line)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(59.9, "+ bootfiles 59 s"), (3599.0, "+ bootfiles 59m59s"), (4000.0, "+ bootfiles 1h06m")]
)
def test_the_seconds_of_a_stage_are_shown_whole(seconds: float, shown: str) -> None:
    screen = msgspec.structs.replace(WORKING, done=(StageTime(stage=Stage.BOOTFILES, seconds=seconds),))
    lines = render(screen, LINKS, now_s=1.0, width=80, height=24)
    assert any(f"{shown} " in line or line.endswith(shown) for line in lines)


def test_a_redrawn_screen_overwrites_all_that_was_there() -> None:
    assert redrawn(("a", "b")) == b"\x1b[Ha\x1b[K\r\nb\x1b[K\x1b[J"


def test_the_short_form_names_every_stage_with_its_mark() -> None:
    title, stages, *links = compact(WORKING, LINKS, now_s=125.0)
    assert title == "Cloner  node01  working  25 s"
    assert stages.startswith("+hello +verify +plan +guard +partition +mkfs +mount >restore .readback")
    assert links == ["eth0 10.77.0.101, 2001:db8::5", "eth1 NO LINK (cable, switch port)"]
