"""What is said of the SSH console when the processes that keep it are gone. Starts real ones."""

from __future__ import annotations

import os
import time

import pytest

from cloner_agent.board import Board
from cloner_agent.screens import Screens
from cloner_core.messages import ConsoleReport

pytestmark = pytest.mark.root
WAIT_S = 30


def test_a_console_is_not_open_any_more_once_the_process_that_keeps_it_has_died() -> None:
    with Screens(Board(), port=0, memory_bytes=0, terminal=lambda: None) as screens:
        screens._report.put(ConsoleReport(is_open=True, views=2))
        assert screens.report().is_open
        assert screens._process is not None
        assert screens._process.pid is not None
        os.kill(screens._process.pid, 9)
        end = time.monotonic() + WAIT_S
        while screens.report().is_open:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert screens.report() == ConsoleReport(is_open=False, views=2)
    assert not screens.report().is_open
