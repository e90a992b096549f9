"""Runs a program of an image in the mounted clone, behind walls: the only place where code of an image runs.

The walls are put up by `cage`, in a process of its own. Must not decide what is run, nor what a failure of it means.
"""

from __future__ import annotations

import json
import logging
import sys
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cloner_agent import cage
from cloner_agent.failures import StageError
from cloner_agent.host import SEARCH_PATH, stream
from cloner_core.describing import obeyed_by_no_terminal
from cloner_core.messages import Cause

log = logging.getLogger(__name__)

FILES = "/run/cloner"
"""Where files that a program is given lie in its view of the clone."""
LOGGED_BYTES = 256 << 10
"""Of the output of one program; the rest is counted."""
_LINE_BYTES = 1000
_TAIL_LINES = 20
_ENVIRONMENT = {"PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8", "HOME": "/root", "TERM": "dumb", "SHELL": "/bin/sh"}


@dataclass(frozen=True, slots=True)
class Program:
    """One program of the image, or a script for one of its interpreters."""

    argv: tuple[str, ...]  # looked up in the clone
    timeout_s: float
    environment: Mapping[str, str] = field(default_factory=dict)  # beside PATH, LC_ALL, HOME, TERM, SHELL
    files: Mapping[str, bytes] = field(default_factory=dict)  # name → content, in FILES, gone afterwards
    devices: tuple[str, ...] = ()  # device files of this machine that it may open, "/dev/…"; none by default
    hostname: str = "clone"


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended."""

    status: int  # 128 + N: killed by signal N
    seconds: float
    is_late: bool  # killed, with all it had started, at its time limit
    last_lines: tuple[str, ...]  # of its output
    dropped_bytes: int  # of its output that were not logged

    @property
    def is_good(self) -> bool:
        """Whether it ended by itself, with status 0."""
        return self.status == 0 and not self.is_late

    def tell(self) -> str:
        """Return in words how it ended."""
        if self.is_late:
            return f"was killed at its time limit, after {self.seconds:.0f} s"
        return f"ended with status {self.status} after {self.seconds:.1f} s"


class Confine(Protocol):
    """The seam of this module."""

    def __call__(self, target: str, program: Program, *, watch: Callable[[], None] = lambda: None) -> Ended:
        """See `confine`."""


def confine(target: str, program: Program, *, watch: Callable[[], None] = lambda: None) -> Ended:
    """Run `program` with the tree mounted at `target` as its root, to its end or its time limit.

    It sees that tree, its own processes, the devices it is given and no network; nothing that it starts outlives it.
    Its output is logged line by line as it comes. `watch` is called every second; what it raises ends the program.
    Raises StageError when the walls cannot be put up: it did not run then.
    """
    order = cage.Order(
        argv=list(program.argv),
        environment={**_ENVIRONMENT, **program.environment},
        hostname=program.hostname,
        files={f"{FILES}/{name}": b64encode(content).decode() for name, content in program.files.items()},
        devices=list(program.devices),
    )
    log.info("confined: %s", " ".join(program.argv))
    output = OutputLog(program.argv[0])
    ended = stream(
        (sys.executable, "-I", "-S", str(Path(cage.__file__).with_suffix(".py")), target),
        output.hear,
        stdin=json.dumps(order).encode(),
        timeout_s=program.timeout_s,
        watch=watch,
    )
    output.close()
    if ended.stderr.strip() and not ended.is_late:
        raise StageError(
            Cause.TOOL, f"'{program.argv[0]}' of the image cannot be confined, and was not run: {ended.stderr.strip()}"
        )
    return Ended(ended.status, ended.seconds, ended.is_late, output.last_lines(), output.dropped_bytes)


class OutputLog:
    """Logs what comes in, by lines, up to a bound; keeps the end."""

    def __init__(self, name: str) -> None:
        """Take the name each line is logged with."""
        self.dropped_bytes = 0
        self._name = name.rsplit("/", 1)[-1]
        self._logged_bytes = 0
        self._line = b""
        self._last: list[str] = []

    def hear(self, data: bytes) -> None:
        """Take the next bytes."""
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self._take(line)
        whole = len(self._line) - len(self._line) % _LINE_BYTES
        if whole:
            self._take(self._line[:whole])
            self._line = self._line[whole:]

    def close(self) -> None:
        """Take what has no line break, and say what was left out."""
        if self._line:
            self._take(self._line)
        if self.dropped_bytes:
            log.warning("%s: %d bytes more are not logged", self._name, self.dropped_bytes)

    def last_lines(self) -> tuple[str, ...]:
        """Return the end of the output."""
        return tuple(self._last)

    def _take(self, line: bytes) -> None:
        for start in range(0, len(line) or 1, _LINE_BYTES):
            self._take_piece(line[start : start + _LINE_BYTES])

    def _take_piece(self, line: bytes) -> None:
        text = obeyed_by_no_terminal(line.rstrip().decode(errors="replace"))
        self._last = [*self._last[1 - _TAIL_LINES :], text]
        if self._logged_bytes + len(line) >= LOGGED_BYTES:
            self.dropped_bytes += len(line) + 1
            return
        self._logged_bytes += len(line) + 1
        log.info("%s: %s", self._name, text)
