"""Logs of a failed run are kept, and their ends are told where a CI keeps them."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmlab import evidence
from vmlab.evidence import Evidence


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evidence:
    monkeypatch.setattr(evidence, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(evidence, "CHECKOUT", tmp_path)
    made = Evidence("a test")
    made.path("node01.serial.log").write_bytes(
        b"\x1b[2JBdsDxe: starting\r\n" + b"." * 5000 + b"\x1b[0;32mKernel panic\x00\r\n"
    )
    made.path("node01.qemu.log").write_text("qemu: killed")
    return made


def test_how_the_console_of_a_failed_run_ends_is_told(made: Evidence, capsys: pytest.CaptureFixture[str]) -> None:
    made.failed = True
    made.close()
    told = capsys.readouterr().err
    assert "the end of node01.serial.log:\n" in told
    assert "....Kernel panic\n" in told
    assert "the end of node01.qemu.log:\nqemu: killed\n" in told
    assert "BdsDxe" not in told, "the end alone"
    assert "\x1b" not in told
    assert made.directory.is_dir()


def test_logs_of_a_good_run_are_removed(made: Evidence, capsys: pytest.CaptureFixture[str]) -> None:
    made.close()
    assert capsys.readouterr().err == ""
    assert not made.directory.exists()
