"""A node's console as a program of its own, for a test to attack: the real processes, a hostile task, no server.

Reads its settings as JSON from standard input; prints what the console reports, a line each change. Must run in a
network namespace: it listens on every address.
"""

from __future__ import annotations

import json
import sys
import time

import msgspec

from cloner_agent.board import Board
from cloner_agent.screens import Screens
from cloner_core.messages import ConsoleAccess, Progress, Stage
from cloner_core.screen import Link

NASTY = "\x1b]0;owned\x07\x1b[2J\x9b31m\x1bP+q\x1b\\\r\n\x00\x7f\u202e\u200b"
"""A window title, a cleared screen, colours by C1, a terminal's query, and text turned around."""


def main() -> None:
    """Show moving progress until killed."""
    asked = json.loads(sys.stdin.readline())
    access = msgspec.convert(asked["access"], ConsoleAccess)
    board = Board(links=lambda: (Link(f"eth{NASTY}0", True, (f"10.0.0.1{NASTY}",)),))
    board.stage(Stage.RESTORE)
    board.log(f"a line of the log {NASTY}, no more")
    # Not on the terminal of the machine that runs the tests.
    with Screens(board, port=asked["port"], terminal=lambda: None) as screens:
        screens.open_console(access)
        told, done = None, 0
        while True:
            done += 1_000_000
            progress = Progress(stage=Stage.RESTORE, done=done, total=10**12, unit="bytes", text=f"pack {NASTY}")
            board.progress(progress)
            if (report := screens.report()) != told:
                told = report
                print(msgspec.json.encode(told).decode(), flush=True)
            time.sleep(0.1)


if __name__ == "__main__":
    main()
