"""Files and directory entries that are on the disk when the call returns, and never there by half."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_new(path: Path, content: bytes | memoryview, mode: int, *, is_durable: bool = True) -> None:
    """Write and sync a file that must not exist yet; its name is durable once its directory is synced.

    What can be had again need not be durable. One that cannot be written whole is taken away again.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)  # whatever the umask is
            file.write(content)
            file.flush()
            if is_durable:
                os.fsync(descriptor)
    except BaseException:
        path.unlink()
        raise


def replace_file(path: Path, content: bytes | memoryview, mode: int, *, is_durable: bool = True) -> None:
    """Put `content` in place of what is at `path`, if anything: whoever opens it finds the old or the new, whole.

    After a power cut that holds for what is durable.
    """
    fresh = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    write_new(fresh, content, mode, is_durable=is_durable)
    try:
        fresh.rename(path)
    except BaseException:
        fresh.unlink()
        raise
    if is_durable:
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the entries of a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
