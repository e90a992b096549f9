"""Where a soak works: a directory of its own in the cache, held by one soak at a time and clean at its start."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cloner_core.errors import RefusedError


@contextmanager
def held_place(directory: Path) -> Iterator[Path]:
    """Give `directory`, empty; what a killed soak left mounted in it is unmounted first.

    Raises RefusedError while another soak holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with directory.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RefusedError(f"another soak works in {directory}", hint="wait for it, or end it") from None
        _clean(directory)
        try:
            yield directory
        finally:
            _clean(directory)


def loops_over(prefix: str) -> list[str]:
    """Return the loop devices over files, or other devices, whose path begins so; the youngest first."""
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # gone meanwhile
            if backing.read_text().startswith(prefix):
                found.append(backing.parts[-3])
    return [f"/dev/{name}" for name in sorted(found, key=lambda name: int(name.removeprefix("loop")), reverse=True)]


def _clean(directory: Path) -> None:
    # What a loop device lies on is busy until that is gone.
    above = [device for over in loops_over(f"{directory}/") for device in (*loops_over(f"{over}p"), over)]
    for mount in reversed(_mounts_beneath(directory)):
        subprocess.run(("umount", "--lazy", mount), check=True, stdin=subprocess.DEVNULL)
    for device in above:
        subprocess.run(("losetup", "--detach", device), check=True, stdin=subprocess.DEVNULL)
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _mounts_beneath(directory: Path) -> list[str]:
    """Return mount points in the order they were mounted; the kernel writes blanks in them as octal."""
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text(errors="surrogateescape").splitlines()]
    plain = [point.encode(errors="surrogateescape").decode("unicode_escape") for point in points]
    return [point for point in plain if point.startswith(os.path.join(os.path.realpath(directory), ""))]
