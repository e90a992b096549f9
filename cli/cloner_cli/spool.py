"""What comes by a pipe, kept in a file without a name: for readers that go back and forth in it.

Nothing else can see the file, and it is gone when the command ends, however that is.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cloner_core.errors import InvalidError, NotFoundError, RefusedError
from cloner_core.sizes import format_bytes

_PIECE_BYTES = 1 << 20


@contextmanager
def opened(path: Path, show: Callable[[int], None]) -> Iterator[BinaryIO]:
    """Give what is at `path` as a file: itself, or what comes by a pipe; "-" is standard input.

    `show` is told how many bytes have come by the pipe. Raises NotFoundError or InvalidError for what is neither, and
    RefusedError when the copy finds no room in $TMPDIR, or /var/tmp without one.
    """
    if str(path) == "-":
        if sys.stdin is None:  # the shell closed it, `<&-`
            raise InvalidError("-: standard input is closed", hint="name a file, or send it by a pipe")
        with _copied(sys.stdin.buffer, "standard input", show) as copy:
            yield copy
        return
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"there is no file {path}", hint="- is standard input") from None
    if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
        raise InvalidError(f"{path} is neither a file nor a pipe", hint="name a file; - is standard input")
    with path.open("rb") as file:
        if stat.S_ISREG(mode):
            yield file
            return
        with _copied(file, str(path), show) as copy:
            yield copy


@contextmanager
def _copied(source: BinaryIO, name: str, show: Callable[[int], None]) -> Iterator[BinaryIO]:
    directory = os.environ.get("TMPDIR") or "/var/tmp"  # not /tmp: that is memory on many a machine
    if not Path(directory).is_dir():
        raise InvalidError(f"there is no directory {directory}, which $TMPDIR names", hint="make it, or unset TMPDIR")
    with tempfile.TemporaryFile(dir=directory, buffering=0) as copy:
        done = 0
        while piece := source.read(_PIECE_BYTES):
            _write(copy.fileno(), piece, f"{directory} has no room for what comes by {name}: {format_bytes(done)} fit")
            done += len(piece)
            show(done)
        copy.seek(0)
        yield copy


def _write(descriptor: int, piece: bytes, full: str) -> None:
    left = memoryview(piece)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except OSError as fault:
            if fault.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise RefusedError(
                full, hint="TMPDIR=DIR names another directory; a file by its name needs none"
            ) from fault
