"""Filesystems to measure on: ext4 on a loop device whose file lies in memory, so that no disk is measured."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

_LEFT_BYTES = 1 << 30  # for what is measured and the peers


def sh(*argv: str) -> None:
    """Run a program that must succeed."""
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def workspace(*, in_memory: bool = True) -> Iterator[Path]:
    """Give a directory, in memory or on the disk, that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="cloner-bench-", dir="/dev/shm" if in_memory else "/var/tmp") as path:
        yield Path(path)


def make_disk(image: Path, size_bytes: int) -> None:
    """Write the file of a disk, zeros, so that it has its memory: to get it in the run would measure the hypervisor.

    Exits when there is no memory for it, as the kernel would kill whom it likes.
    """
    free_bytes = psutil.virtual_memory().available
    if free_bytes < size_bytes + _LEFT_BYTES:
        sys.exit(
            f"bench: {free_bytes >> 20} MiB of memory are free, a disk of {size_bytes >> 20} MiB "
            f"and {_LEFT_BYTES >> 20} MiB more are wanted; see what lies in /dev/shm"
        )
    zeros = bytes(1 << 20)
    with image.open("wb") as file:
        for _ in range(size_bytes >> 20):
            file.write(zeros)


@contextmanager
def ext4(directory: Path, name: str, size_bytes: int, *mkfs: str) -> Iterator[Path]:
    """Give the mount point of a new ext4, removed afterwards. It has its memory already, as a disk has its sectors."""
    image, mount = directory / f"{name}.img", directory / name
    make_disk(image, size_bytes)
    sh("mkfs.ext4", "-q", "-E", "nodiscard", *mkfs, str(image))
    mount.mkdir()
    sh("mount", "-o", "loop", str(image), str(mount))
    try:
        yield mount
    finally:
        sh("umount", str(mount))
        mount.rmdir()
        image.unlink()


def is_identical(source: Path, target: Path) -> bool:
    """Tell whether rsync, comparing everything and every byte, would change nothing."""
    options = ("-aHAXSn", "--numeric-ids", "--checksum", "--delete", "--itemize-changes", "--exclude=/lost+found")
    done = subprocess.run(("rsync", *options, f"{source}/", f"{target}/"), check=True, capture_output=True)
    return not done.stdout
