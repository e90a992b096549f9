"""Programs run with nothing of our environment, in bounded time, and their failure is typed. Starts real programs."""

from __future__ import annotations

import time

import pytest

from cloner_agent.host import ToolError, paste, run

pytestmark = pytest.mark.root


def test_the_environment_is_built_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    assert sorted(run(("env",)).stdout.splitlines()) == [
        "HOME=/",
        "LC_ALL=C.UTF-8",
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


def test_a_missing_program_is_named() -> None:
    with pytest.raises(ToolError, match="no such program"):
        run(("cloner-no-such-program",))


def test_a_logged_command_can_be_pasted() -> None:
    assert paste(("sfdisk", "/dev/a b"), "label: gpt\n") == "sfdisk '/dev/a b' <<'END'\nlabel: gpt\nEND"
