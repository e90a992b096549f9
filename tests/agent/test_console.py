"""The lines people and tests read on the serial console."""

from __future__ import annotations

import io

import pytest

from cloner_agent.console import Console, progress_text
from cloner_core.messages import Cause, Failure, Progress, Stage


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (
            Progress(stage=Stage.RESTORE, done=180_000_000, total=400_000_000, unit="bytes", rate_per_s=12.3e6),
            "stage restore 45% 12.3 MB/s 180.0 of 400.0 MB",
        ),
        (Progress(stage=Stage.MKFS, done=4, total=11, text="format root"), "stage mkfs 36% 4/11: format root"),
        (Progress(stage=Stage.HELLO), "stage hello"),
        (Progress(stage=Stage.READBACK, done=5, total=4, unit="steps"), "stage readback 100% 5/4"),
    ],
)
def test_a_progress_line_reads_as_documented(progress: Progress, text: str) -> None:
    assert progress_text(progress) == text


def test_progress_lines_are_thinned_out_but_each_stage_shows_its_first() -> None:
    out, now = io.StringIO(), [0.0]
    console = Console(out, clock=lambda: now[0])
    for second in range(10):
        now[0] = float(second)
        console.progress(Progress(stage=Stage.RESTORE, done=second, total=10))
    assert out.getvalue().count("stage restore") == 5
    console.stage(Stage.READBACK)
    console.progress(Progress(stage=Stage.READBACK, done=1, total=10))
    assert "stage readback" in out.getvalue()


def test_a_failure_shows_marker_message_and_hint() -> None:
    out = io.StringIO()
    Console(out).failed(
        Failure(stage=Stage.MKFS, cause=Cause.DISK_IO, message="it broke", hint="mend it", is_destroyed=True)
    )
    assert out.getvalue().splitlines() == [
        "CLONER FAILED stage=mkfs cause=disk-io destroyed=true",
        "cloner: failed: it broke",
        "cloner: hint: mend it",
    ]


class _Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


def test_a_console_that_went_away_stops_nothing() -> None:
    console = Console(_Gone())
    console.line("hello")
    console.marker("HOLD")


def test_a_name_that_is_no_utf8_does_not_end_a_deploy() -> None:
    raw = io.BytesIO()
    console = Console(io.TextIOWrapper(raw, encoding="utf-8"))
    console.line(b"M\xfcller".decode(errors="surrogateescape"))
    assert raw.getvalue() == b"cloner: M\\udcfcller\n"
