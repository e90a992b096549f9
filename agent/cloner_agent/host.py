"""Starts programs on the node: the only module of the agent that does.

Must not decide what is run: argv comes from a plan or from the stage that needs a tool.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import selectors
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO, Protocol

from cloner_core.errors import ClonerError

log = logging.getLogger(__name__)

LOOK_AT_LOG = "the log of the task has the whole output"
SEARCH_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_KIT_TOOLS = os.path.join(sys.prefix, "lib/cloner/tools")
"""Of the kit on a golden node: `before` goes before the node's own programs, `behind` has what it may lack."""
# The initramfs has no udev rules for volumes and arrays; a tool that waited for one would wait for ever.
_ENVIRONMENT = {
    "PATH": SEARCH_PATH,
    "LC_ALL": "C.UTF-8",
    "HOME": "/",
    "DM_DISABLE_UDEV": "1",  # libdm/libdm-common.c
    "MDADM_NO_UDEV": "1",  # mdadm, lib.c, use_udev()
}
MAX_OUTPUT_BYTES = 8 << 20
"""Of each stream. A broken or hostile disk can have a tool print without end, and memory is all the node has."""
_TAIL_BYTES = 2000
_READ_BYTES = 64 << 10
_WATCH_S = 1.0
_GONE_S = 10.0  # a process that waits for a dead disk does not end
_WRITE_BYTES = 512  # a pipe that is ready takes at least so much: PIPE_BUF of POSIX
MISSING_STATUS = 127  # what a shell answers for a program that does not exist


@dataclass(frozen=True, slots=True)
class Completed:
    """What a program that ended left behind."""

    argv: tuple[str, ...]
    status: int  # exit status; negative: killed by that signal
    stdout: str
    stderr: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Streamed:
    """What a program whose output was heard while it ran left behind."""

    status: int  # exit status; negative: killed by that signal
    stderr: str  # its end
    seconds: float
    is_late: bool  # it was killed at its time limit


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
    process = _start(argv, has_input=bool(stdin))
    try:
        out, err = _communicate(process, stdin.encode(), started + timeout_s)
    except _OverrunError as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise ToolError(argv, process.returncode, _tail(error.stderr), hint=error.hint(timeout_s)) from error
    finally:
        _close(process)
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


def stream(
    argv: Sequence[str],
    heard: Callable[[bytes], None],
    *,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    timeout_s: float,
    watch: Callable[[], None] = lambda: None,
    grace_s: float = 10.0,
) -> Streamed:
    """Run one program to its end, and give what it writes to `heard` as it comes, without a bound.

    `environment` is added to the few variables all programs get.

    Neither `stdin` nor the output is logged. `watch` is called every second; what it or `heard` raises ends the whole
    process group and is raised. On the time limit the group is ended, which is no exception here: by SIGTERM, and by
    SIGKILL when it has not ended after `grace_s`.
    Raises ToolError when the program is missing.
    """
    log.info("run: %s", paste(argv))
    started = time.monotonic()
    process = _start(argv, has_input=bool(stdin), environment=environment)
    stderr = bytearray()

    def keep(data: bytes) -> None:
        stderr.extend(data)
        del stderr[:-_TAIL_BYTES]

    is_late = False
    try:
        _pump(process, stdin, {process.stdout: heard, process.stderr: keep}, started + timeout_s, watch)
    except _OverrunError:
        is_late = True
    finally:
        if process.returncode is None:
            _end(process, grace_s)
        _close(process)
    return Streamed(process.returncode, stderr.decode(errors="replace"), time.monotonic() - started, is_late)


def _start(
    argv: Sequence[str], *, has_input: bool, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            tuple(argv),
            stdin=subprocess.PIPE if has_input else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**_ENVIRONMENT, **(environment or {})},
            cwd="/",
            start_new_session=True,
            executable=_find(argv[0]),
        )
    except OSError as error:
        raise ToolError(argv, MISSING_STATUS, str(error), hint=f"the initramfs lacks a working '{argv[0]}'") from error


def _end(process: subprocess.Popen[bytes], grace_s: float) -> None:
    if grace_s:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
            return
    # What unshare(1) has started is the init of a namespace, which has ended when all that is in there has.
    with _pidfds_of_children(process.pid) as children:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        ended_by = time.monotonic() + _GONE_S
        for child in children:
            if not select.select([child], [], [], max(ended_by - time.monotonic(), 0))[0]:
                log.warning("run: what %s had started has not ended %g s after it was killed", process.args, _GONE_S)


@contextlib.contextmanager
def _pidfds_of_children(pid: int) -> Iterator[list[int]]:
    """Give a pidfd for each child of `pid`: readable once that has ended, whoever reaps it."""
    import psutil

    with contextlib.ExitStack() as opened:
        fds = []
        for child in psutil.Process(pid).children():
            with contextlib.suppress(ProcessLookupError):
                fds.append(os.pidfd_open(child.pid))
                opened.callback(os.close, fds[-1])
        yield fds


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


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
    out, err = bytearray(), bytearray()

    def keep(kept: bytearray, data: bytes) -> None:
        kept.extend(data)
        if len(kept) > MAX_OUTPUT_BYTES:
            raise _OverrunError(bytes(err), is_too_long=False)

    try:
        _pump(process, stdin, {process.stdout: partial(keep, out), process.stderr: partial(keep, err)}, deadline_s)
    except _OverrunError as error:
        raise _OverrunError(bytes(err), is_too_long=error.is_too_long) from error
    return bytes(out), bytes(err)


def _pump(
    process: subprocess.Popen[bytes],
    stdin: bytes,
    sinks: Mapping[IO[bytes] | None, Callable[[bytes], None]],
    deadline_s: float,
    watch: Callable[[], None] | None = None,
) -> None:
    """Feed `process`, give what comes out of each pipe to its sink, and wait for its end.

    Raises _OverrunError at the deadline.
    """
    with selectors.DefaultSelector() as waiting:
        for pipe, sink in sinks.items():
            assert pipe is not None
            waiting.register(pipe, selectors.EVENT_READ, sink)
        if process.stdin is not None:
            waiting.register(process.stdin, selectors.EVENT_WRITE)
        while waiting.get_map():
            left_s = max(deadline_s - time.monotonic(), 0)
            ready = waiting.select(left_s if watch is None else min(left_s, _WATCH_S))
            if time.monotonic() >= deadline_s:
                raise _OverrunError(b"", is_too_long=True)
            if watch is not None:
                watch()
            for key, _ in ready:
                if key.fileobj is process.stdin:
                    stdin = _fed(key.fd, stdin)
                    if not stdin:
                        waiting.unregister(process.stdin)
                        process.stdin.close()
                    continue
                data = os.read(key.fd, _READ_BYTES)
                if data:
                    key.data(data)
                else:
                    waiting.unregister(key.fileobj)
    try:
        process.wait(max(deadline_s - time.monotonic(), 0))
    except subprocess.TimeoutExpired as error:
        raise _OverrunError(b"", is_too_long=True) from error


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
    for directory in (f"{_KIT_TOOLS}/before", *SEARCH_PATH.split(":"), f"{_KIT_TOOLS}/behind"):
        path = f"{directory}/{name}"
        if os.access(path, os.X_OK):
            return path
    raise FileNotFoundError(2, "no such program in " + SEARCH_PATH, name)


def _tail(data: bytes) -> str:
    return data[-_TAIL_BYTES:].decode(errors="replace")
