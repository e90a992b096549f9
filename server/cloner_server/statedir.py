"""The state directory as a whole: one process at a time works on it, and what an import left unfinished is no state."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from cloner_core.errors import RefusedError

LOCK = "lock"
IMPORTING = ".import"
"""Where an import unpacks; while it is there, the directory is neither blank nor whole."""


@contextlib.contextmanager
def locked(state: Path) -> Iterator[None]:
    """Hold `state`, made when missing, for this process; raises RefusedError while another one does."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (state / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as fault:
            file.seek(0)
            holder = file.read(20).strip() or "unknown"
            raise RefusedError(
                f"another server runs on {state} (process {holder})", hint="stop it, or choose another --state"
            ) from fault
        with contextlib.suppress(OSError):  # of a full disk: the lock is held all the same
            file.truncate(0)
            os.write(file.fileno(), f"{os.getpid()}\n".encode())
        yield


def refuse_unfinished(state: Path) -> None:
    """Raise RefusedError when an import into `state` was begun and never finished."""
    if (state / IMPORTING).exists():
        raise RefusedError(
            f"an import into {state} was not finished",
            hint="do it again: cloner state import FILE (it takes away what the former one left)",
        )
