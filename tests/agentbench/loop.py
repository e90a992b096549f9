"""A loop device as the disk of a node, and programs of this machine for it.

The kernel here may know neither vfat nor GPT: partx hands it the partitions, and a directory stands in for the ESP's
filesystem. Everything else is what a node does.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cloner_agent.host import Completed, ToolError, run
from cloner_agent.stages.disks import unmount_all
from vmlab.disk import content_digest


class LoopDisk:
    """One loop device over a sparse file."""

    def __init__(self, file: Path, device: str) -> None:
        self.file = file
        self.device = device

    @property
    def name(self) -> str:
        """The kernel's name."""
        return self.device.removeprefix("/dev/")

    def digest(self) -> str:
        """Return the digest of every byte on the disk."""
        os.sync()
        return content_digest(self.file)


@contextmanager
def loop_disk(file: Path, size_bytes: int) -> Iterator[LoopDisk]:
    """Give a blank disk; its partitions and the device are gone afterwards."""
    file.touch()
    os.truncate(file, size_bytes)
    device = run(("losetup", "--find", "--show", str(file))).stdout.strip()
    try:
        forget_partitions(device)
        yield LoopDisk(file, device)
    finally:
        forget_partitions(device)
        run(("losetup", "--detach", device))


def forget_partitions(device: str) -> None:
    """Take every partition from the kernel that it still has of `device`, a former user's too.

    Not `partx --delete`, which goes by the table on the disk: where that is gone the kernel's partitions stay, until
    some later opening of the device removes them in the middle of another test.
    """
    name = device.removeprefix("/dev/")
    for partition in Path("/sys/block", name).glob(f"{name}p*"):
        with contextlib.suppress(ToolError, FileNotFoundError):  # the kernel was first
            run(("delpart", device, (partition / "partition").read_text().strip()))


class NodePrograms:
    """Runs programs as a node does, except that mounting vfat binds a directory instead."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.ran: list[tuple[str, ...]] = []

    @property
    def esp(self) -> Path:
        """The directory that stands in for the ESP."""
        return self._directory

    def __call__(
        self, argv: Sequence[str], *, stdin: str = "", timeout_s: float = 60.0, accept: Sequence[int] = (0,)
    ) -> Completed:
        command = tuple(argv)
        self.ran.append(command)
        if command[:3] == ("mount", "-t", "vfat"):
            self._directory.mkdir(exist_ok=True)
            command = ("mount", "--bind", str(self._directory), command[-1])
        return run(command, stdin=stdin, timeout_s=timeout_s, accept=accept)


@contextmanager
def target_directory(path: Path) -> Iterator[Path]:
    """Give the mount point of a clone; everything beneath it is unmounted afterwards."""
    path.mkdir()
    try:
        yield path
    finally:
        unmount_all(run, str(path))
