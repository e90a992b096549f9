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
from types import FrameType

_CALLS = frozenset(
    {"open", "write", "fsync", "rename", "replace", "link", "unlink", "remove", "mkdir", "rmdir", "utime"}
)
_STATEMENTS = frozenset({"execute", "executemany", "commit"})


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
    def on_call(frame: FrameType, event: str, called: object) -> None:
        if event == "c_call" and _is_effect(called):
            on_effect()

    former, of_threads = sys.getprofile(), threading.getprofile()
    threading.setprofile(on_call)
    sys.setprofile(on_call)
    try:
        yield
    finally:
        sys.setprofile(former)
        threading.setprofile(of_threads)


def _is_effect(called: object) -> bool:
    name = getattr(called, "__name__", "")
    if getattr(called, "__module__", "") == "posix":
        return name in _CALLS
    return name in _STATEMENTS and isinstance(getattr(called, "__self__", None), sqlite3.Connection | sqlite3.Cursor)
