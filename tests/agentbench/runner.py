"""Stands in for `cloner_agent.host.run`: remembers commands, plays their output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from cloner_agent.host import Completed, ToolError

_READING = {"sfdisk": "--json", "wipefs": "--json", "blkid": "-p", "lvm": "pvs"}  # and with these words they only read


def reads(argv: Sequence[str]) -> bool:
    """Tell whether a command is known to write nothing."""
    return _READING.get(Path(argv[0]).name, "no such word") in argv


class FakeRunner:
    """Answers by the first word of a command; a command without an answer succeeds silently."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, ...]] = []
        self.output: dict[str, str] = {}
        self.failing: dict[str, tuple[int, str]] = {}
        self.effects: dict[tuple[str, ...], Callable[[], None]] = {}

    def __call__(
        self, argv: Sequence[str], *, stdin: str = "", timeout_s: float = 60.0, accept: Sequence[int] = (0,)
    ) -> Completed:
        command = tuple(argv)
        self.ran.append(command)
        if command[0] in self.failing:
            status, stderr = self.failing[command[0]]
            raise ToolError(command, status, stderr)
        self.effects.get(command, lambda: None)()
        return Completed(command, 0, self.output.get(command[0], ""), "", 0.0)
