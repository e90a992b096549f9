"""What a person, or a test, reads on the serial line of the node: plain lines, nothing else.

Marker lines (`CLONER STAGE restore`) are upper-case and stable; tests and monitoring wait for them. The same news goes
to the `Board`, which the screens of other processes are drawn from.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import TextIO

from cloner_agent.board import Board
from cloner_core.describing import obeyed_by_no_terminal, sendable
from cloner_core.messages import Failure, Progress, Stage
from cloner_core.screen import compact

_EVERY_S = 2.0  # a serial line carries 11 kB/s and each write waits for it
_BLOCK_EVERY_S = 10.0


class Console:
    """Writes status lines, progress lines at most every two seconds; `board` is told the same, when there is one."""

    def __init__(
        self,
        out: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        board: Board | None = None,
    ) -> None:
        self.board = board
        self._out = out if out is not None else sys.stdout
        self._clock = clock
        self._next = 0.0
        self._next_block = 0.0

    def line(self, text: str) -> None:
        """Write one line at once."""
        try:
            self._out.write(f"cloner: {obeyed_by_no_terminal(sendable(text))}\n")
            self._out.flush()
        except OSError:
            # A serial console that went away (BMC session closed, EIO) must not end a deploy.
            return

    def marker(self, text: str) -> None:
        """Write one stable marker line."""
        try:
            self._out.write(f"CLONER {obeyed_by_no_terminal(sendable(text))}\n")
            self._out.flush()
        except OSError:
            return

    def log(self, text: str) -> None:
        """Write one record of the log; its lines after the first are indented."""
        if self.board is not None:
            self.board.log(text)
        self.line(text.replace("\n", "\n        "))

    def stage(self, stage: Stage) -> None:
        """Announce a stage, with the screen in short when it was not shown for ten seconds."""
        self._next = 0.0
        self.marker(f"STAGE {stage}")
        if self.board is None:
            return
        self.board.stage(stage)
        if (now := self._clock()) >= self._next_block:
            self._next_block = now + _BLOCK_EVERY_S
            self._block(self.board)

    def progress(self, progress: Progress) -> None:
        """Show how far the stage is, unless the last such line is younger than two seconds."""
        if self.board is not None:
            self.board.progress(progress)
        now = self._clock()
        if now < self._next:
            return
        self._next = now + _EVERY_S
        self.line(progress_text(progress))

    def failed(self, failure: Failure) -> None:
        """Show a failure so that it can be understood at the machine."""
        if self.board is not None:
            self.board.failed(failure)
        self.marker(f"FAILED stage={failure.stage} cause={failure.cause} destroyed={str(failure.is_destroyed).lower()}")
        self.line(f"failed: {failure.message}")
        if failure.hint:
            self.line(f"hint: {failure.hint}")
        if self.board is not None:
            self._block(self.board)

    def hold(self) -> None:
        """Say that the node waits for a person."""
        if self.board is not None:
            self.board.hold()
        self.marker("HOLD")
        self.line("holding: nothing is touched until 'cloner task retry' or 'cloner deploy'")

    def erased(self) -> None:
        """Say that the disks are erased and the node waits for the next task."""
        if self.board is not None:
            self.board.hold()
        self.marker("ERASED")
        self.line("erased: nothing is left to boot; the node waits for its next task")

    def off(self, why: str) -> None:
        """Say that the node switches off now."""
        if self.board is not None:
            self.board.restarting(why)
        self.marker(f"OFF {why}")

    def reboot(self, why: str) -> None:
        """Say that the node restarts now."""
        if self.board is not None:
            self.board.restarting(why)
        self.marker(f"REBOOT {why}")

    def _block(self, board: Board) -> None:
        for line in compact(board.get(), board.links(), now_s=self._clock()):
            self.line(line)


class ConsoleHandler(logging.Handler):
    """Shows the agent's log on the console."""

    def __init__(self, console: Console, level: int = logging.INFO) -> None:
        super().__init__(level)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record's text."""
        self._console.log(record.getMessage())


def progress_text(progress: Progress) -> str:
    """Return one status line: `stage restore 45% 12.3 MB/s 180.0 of 400.0 MB: text`."""
    words = [f"stage {progress.stage}"]
    if progress.total > 0:
        words.append(f"{min(100, 100 * progress.done // progress.total)}%")
    if progress.unit == "bytes":
        words.append(f"{progress.rate_per_s / 1e6:.1f} MB/s {progress.done / 1e6:.1f}")
        if progress.total > 0:
            words.append(f"of {progress.total / 1e6:.1f} MB")
    elif progress.total > 0:
        words.append(f"{progress.done}/{progress.total}")
    line = " ".join(words)
    return f"{line}: {progress.text}" if progress.text else line
