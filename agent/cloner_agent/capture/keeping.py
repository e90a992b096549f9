"""Files a capturing machine keeps for its next capture: private, whole or absent, worth nothing but time."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

BUFFER_BYTES = 1 << 20


class UnusableError(Exception):
    """Why a kept file is not used; the capture does without and says so."""


def create_beside(path: Path, opened: ExitStack) -> BinaryIO:
    """Return a new file that `put_in_place` makes `path`; it is gone with `opened` otherwise. Raises OSError."""
    beside = _beside(path)
    beside.unlink(missing_ok=True)  # of a capture that was killed
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    opened.callback(beside.unlink, missing_ok=True)
    file = os.fdopen(fd, "wb", BUFFER_BYTES)
    opened.callback(_close, file)
    return file


def put_in_place(path: Path, file: BinaryIO) -> None:
    """Make the file from `create_beside` the one at `path`, durable before anybody sees it there. Raises OSError."""
    file.flush()
    os.fsync(file.fileno())
    os.rename(_beside(path), path)


def open_own(path: Path, opened: ExitStack) -> tuple[BinaryIO, int]:
    """Return a kept file and its size; raises UnusableError when somebody else can have written it, or OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    file = opened.enter_context(os.fdopen(fd, "rb", BUFFER_BYTES))
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise UnusableError("others can write or read it")
    return file, status.st_size


def walk_key(path: bytes) -> bytes:
    """Return bytes that sort as the walk goes: a directory's entries before what follows its name."""
    return path.replace(b"/", b"\0")


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".new")


def _close(file: BinaryIO) -> None:
    with suppress(OSError):  # what could not be written is told, and goes with the file
        file.close()
