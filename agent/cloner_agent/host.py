"""Starts programs on the node: the only module of the agent that does.

Must not decide what is run: argv comes from a plan or from the stage that needs a tool.
"""

from __future__ import annotations

import logging
import os
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cloner_core.errors import ClonerError

log = logging.getLogger(__name__)

LOOK_AT_LOG = "the log of the task has the whole output"
SEARCH_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
MAX_OUTPUT_BYTES = 8 << 20
"""Of each stream. A broken or hostile disk can have a tool print without end, and memory is all the node has."""
_TAIL_BYTES = 2000
_READ_BYTES = 64 << 10
_WRITE_BYTES = 512  # a pipe that is ready takes at least so much: PIPE_BUF of POSIX
_EINVAL_STATUS = 127  # what a shell answers for a program that does not exist


@dataclass(frozen=True, slots=True)
class Completed:
    """What a program that ended left behind."""

    argv: tuple[str, ...]
    status: int  # exit status; negative: killed by that signal
    stdout: str
    stderr: str
    seconds: float


class ToolError(ClonerError):
    """A program of the agent failed, is missing or took too long."""

    def __init__(self, argv: Sequence[str], status: int, stderr_tail: str, *, hint: str = "") -> None:
        self.argv = tuple(argv)
        self.status = status
        self.stderr_tail = stderr_tail
        how = f"ended with status {status}" if status >= 0 else f"was killed by signal {-status}"
        last = f": {stderr_tail.strip().splitlines()[-1]}" if stderr_tail.strip() else ""
        super().__init__(f"'{paste(argv)}' {how}{last}", hint=hint or LOOK_AT_LOG)

    def __reduce__(self) -> tuple[type[ToolError], tuple[object, ...], dict[str, object]]:
        return type(self), (self.argv, self.status, self.stderr_tail), self.__dict__


class Runner(Protocol):
    """The seam of this module: how everything else starts programs."""

    def __call__(
        self, argv: Sequence[str], *, stdin: str = "", timeout_s: float = 60.0, accept: Sequence[int] = (0,)
    ) -> Completed:
        """See `run`."""


def paste(argv: Sequence[str], stdin: str = "") -> str:
    """Return a line that a person can paste into a shell to do the same."""
    line = shlex.join(argv)
    return f"{line} <<'END'\n{stdin.rstrip()}\nEND" if stdin else line


def run(argv: Sequence[str], *, stdin: str = "", timeout_s: float = 60.0, accept: Sequence[int] = (0,)) -> Completed:
    """Run one program to its end and return what it wrote.

    No shell, an environment built from nothing, standard input closed unless `stdin` is given. Everything is logged,
    so a secret must never be part of `argv` or `stdin`. On the time limit, and past MAX_OUTPUT_BYTES of output, the
    whole process group is killed.
    Raises ToolError when the program is missing, overruns or ends with a status outside `accept`.
    """
    log.info("run: %s", paste(argv, stdin))
    started = time.monotonic()
    try:
        process = subprocess.Popen(
            tuple(argv),
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8", "HOME": "/"},
            cwd="/",
            start_new_session=True,
            executable=_find(argv[0]),
        )
    except OSError as error:
        raise ToolError(argv, _EINVAL_STATUS, str(error), hint=f"the initramfs lacks a working '{argv[0]}'") from error
    try:
        out, err = _communicate(process, stdin.encode(), started + timeout_s)
    except _OverrunError as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise ToolError(argv, process.returncode, _tail(error.stderr), hint=error.hint(timeout_s)) from error
    finally:
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    seconds = time.monotonic() - started
    done = Completed(
        tuple(argv), process.returncode, out.decode(errors="replace"), err.decode(errors="replace"), seconds
    )
    log.debug("run: %s: status %s after %.2f s", argv[0], done.status, seconds)
    if done.status not in accept:
        if done.stdout.strip() or done.stderr.strip():
            log.error("%s: %s%s", argv[0], done.stdout[-_TAIL_BYTES:], done.stderr[-_TAIL_BYTES:])
        raise ToolError(argv, done.status, _tail(err))
    return done


class _OverrunError(Exception):
    """A program took too long or wrote too much."""

    def __init__(self, stderr: bytes, *, is_too_long: bool) -> None:
        super().__init__()
        self.stderr = stderr
        self.is_too_long = is_too_long

    def hint(self, timeout_s: float) -> str:
        if self.is_too_long:
            return f"it did not end within {timeout_s:g} s; a dying disk is the usual reason"
        return f"it wrote more than {MAX_OUTPUT_BYTES >> 20} MiB; a broken filesystem is the usual reason"


def _communicate(process: subprocess.Popen[bytes], stdin: bytes, deadline_s: float) -> tuple[bytes, bytes]:
    """Feed and read `process` to its end, as Popen.communicate() does, which keeps whatever it gets."""
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = bytearray(), bytearray()
    with selectors.DefaultSelector() as waiting:
        waiting.register(process.stdout, selectors.EVENT_READ, out)
        waiting.register(process.stderr, selectors.EVENT_READ, err)
        if process.stdin is not None:
            waiting.register(process.stdin, selectors.EVENT_WRITE)
        while waiting.get_map():
            ready = waiting.select(max(deadline_s - time.monotonic(), 0))
            if time.monotonic() >= deadline_s:
                raise _OverrunError(bytes(err), is_too_long=True)
            for key, _ in ready:
                if key.fileobj is process.stdin:
                    stdin = _fed(key.fd, stdin)
                    if not stdin:
                        waiting.unregister(process.stdin)
                        process.stdin.close()
                    continue
                data = os.read(key.fd, _READ_BYTES)
                key.data.extend(data)
                if not data:
                    waiting.unregister(key.fileobj)
                elif len(key.data) > MAX_OUTPUT_BYTES:
                    raise _OverrunError(bytes(err), is_too_long=False)
    try:
        process.wait(max(deadline_s - time.monotonic(), 0))
    except subprocess.TimeoutExpired as error:
        raise _OverrunError(bytes(err), is_too_long=True) from error
    return bytes(out), bytes(err)


def _fed(fd: int, stdin: bytes) -> bytes:
    """Write a piece and return the rest; nothing is left for a program that reads no more, whose status tells why."""
    try:
        return stdin[os.write(fd, stdin[:_WRITE_BYTES]) :]
    except BrokenPipeError:
        return b""


def _find(name: str) -> str:
    """Look `name` up in our own path; Popen would use the path of the parent's environment."""
    if "/" in name:
        return name
    for directory in SEARCH_PATH.split(":"):
        path = f"{directory}/{name}"
        if os.access(path, os.X_OK):
            return path
    raise FileNotFoundError(2, "no such program in " + SEARCH_PATH, name)


def _tail(data: bytes) -> str:
    return data[-_TAIL_BYTES:].decode(errors="replace")
