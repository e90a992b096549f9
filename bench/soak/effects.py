"""What a Python program does that lasts, as the profiler of the interpreter sees it: counted, and killed before any.

An effect is a call that changes something: a system call on a file, a statement or commit of SQLite.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import RawValue
from types import FrameType

_CALLS = frozenset(
    {"open", "write", "fsync", "rename", "replace", "link", "unlink", "remove", "mkdir", "rmdir", "utime"}
)
_STATEMENTS = frozenset({"execute", "executemany", "commit"})
_SENDS = frozenset({"send", "sendall", "write"})

IsEffect = Callable[[object], bool]
"""Tells whether a call of this builtin is one."""


class Fuse:
    """Counts the effects of a process, which is killed right before one that others may choose while it runs.

    Made before the process is forked.
    """

    def __init__(self) -> None:
        self._seen = RawValue("q", 0)
        self._changed = RawValue("q", 0)
        self._at = RawValue("q", 0)

    @property
    def seen(self) -> int:
        """Return how many effects there were; of two at the same instant one may be lost."""
        return int(self._seen.value)

    @property
    def changed(self) -> int:
        """Return how many of them changed something by themselves: of SQLite the commits, as who idles reads, too."""
        return int(self._changed.value)

    def light(self, after: int) -> None:
        """Have the process killed right before the effect `after` (from 1) from now on."""
        self._at.value = self._seen.value + after

    def burn(self, is_effect: IsEffect | None = None) -> None:
        """Count from here to the end of this process, in all threads that it starts; all effects, or just these."""

        def on_effect() -> None:
            self._seen.value += 1
            if 0 < self._at.value <= self._seen.value:
                os.kill(os.getpid(), signal.SIGKILL)

        def is_one(called: object) -> bool:
            is_any = (is_effect or _is_effect)(called)
            self._changed.value += is_any and getattr(called, "__name__", "") not in ("execute", "executemany")
            return is_any

        _watch(on_effect, is_one)


def is_sending(called: object) -> bool:
    """Return whether a builtin sends bytes over a socket, with TLS or without."""
    kind = type(getattr(called, "__self__", None)).__name__
    return getattr(called, "__name__", "") in _SENDS and kind in ("_SSLSocket", "SSLSocket", "socket")


@contextmanager
def killed_before(at: int) -> Iterator[None]:
    """Kill this process right before its effect number `at`, in whatever thread; with 0 never, and it runs freely."""
    if not at:
        yield
        return
    seen = 0

    def die_at_last() -> None:
        nonlocal seen
        seen += 1
        if seen == at:
            os.kill(os.getpid(), signal.SIGKILL)

    with _watched(die_at_last):
        yield


def count_effects(work: Callable[[], object]) -> int:
    """Do `work` and return how many effects it had, threads that it starts included."""
    seen = 0

    def count() -> None:
        nonlocal seen
        seen += 1

    with _watched(count):
        work()
    return seen


@contextmanager
def _watched(on_effect: Callable[[], None]) -> Iterator[None]:
    former, of_threads = sys.getprofile(), threading.getprofile()
    _watch(on_effect, _is_effect)
    try:
        yield
    finally:
        sys.setprofile(former)
        threading.setprofile(of_threads)


def _watch(on_effect: Callable[[], None], is_effect: IsEffect) -> None:
    def on_call(frame: FrameType, event: str, called: object) -> None:
        if event == "c_call" and is_effect(called):
            on_effect()

    threading.setprofile(on_call)
    sys.setprofile(on_call)


def _is_effect(called: object) -> bool:
    name = getattr(called, "__name__", "")
    if getattr(called, "__module__", "") == "posix":
        return name in _CALLS
    return name in _STATEMENTS and isinstance(getattr(called, "__self__", None), sqlite3.Connection | sqlite3.Cursor)
