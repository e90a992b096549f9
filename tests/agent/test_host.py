"""Programs run with nothing of our environment, in bounded time, and their failure is typed. Starts real programs."""

from __future__ import annotations

import time

import pytest

from cloner_agent.host import ToolError, paste, run

pytestmark = pytest.mark.root


def test_the_environment_is_built_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    assert sorted(run(("env",)).stdout.splitlines()) == [
        "DM_DISABLE_UDEV=1",
        "HOME=/",
        "LC_ALL=C.UTF-8",
        "MDADM_NO_UDEV=1",
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
    ]


def test_standard_input_is_closed_unless_given() -> None:
    assert run(("cat",)).stdout == ""
    assert run(("cat",), stdin="label: gpt\n").stdout == "label: gpt\n"


def test_a_status_outside_the_accepted_is_an_error_with_the_last_words() -> None:
    with pytest.raises(ToolError, match="No such file") as caught:
        run(("ls", "/nowhere"))
    assert caught.value.status == 2
    assert run(("ls", "/nowhere"), accept=(0, 2)).status == 2


def test_a_program_that_overruns_is_killed_with_its_children() -> None:
    started = time.monotonic()
    with pytest.raises(ToolError, match="signal 9"):
        run(("sh", "-c", "sleep 60 & wait"), timeout_s=0.3)
    assert time.monotonic() - started < 30


def test_a_program_that_writes_without_end_is_killed_with_its_children() -> None:
    """As debugfs does of a file of 200 GB that is all hole, on a disk that somebody left in the machine."""
    for stream in ("", " >&2"):
        with pytest.raises(ToolError, match="signal 9") as caught:
            run(("sh", "-c", f"echo before >&2; head -c 64M /dev/zero{stream} & wait"))
        assert caught.value.hint == "it wrote more than 8 MiB; a broken filesystem is the usual reason"


def test_a_long_input_and_output_pass_whole_and_an_input_nobody_reads_is_no_fault() -> None:
    text = "label: gpt\n" * 100_000
    assert run(("cat",), stdin=text).stdout == text
    assert run(("true",), stdin=text).status == 0


def test_a_program_that_closes_its_output_is_waited_for() -> None:
    assert run(("sh", "-c", "exec >&- 2>&-; sleep 0.2; exit 3"), accept=(3,)).status == 3
    with pytest.raises(ToolError, match="signal 9"):
        run(("sh", "-c", "exec >&- 2>&-; sleep 60"), timeout_s=0.3)


def test_a_missing_program_is_named() -> None:
    with pytest.raises(ToolError, match="no such program"):
        run(("cloner-no-such-program",))


def test_a_logged_command_can_be_pasted() -> None:
    assert paste(("sfdisk", "/dev/a b"), "label: gpt\n") == "sfdisk '/dev/a b' <<'END'\nlabel: gpt\nEND"
