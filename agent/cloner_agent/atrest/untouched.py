"""Has the kernel refuse writes to the disks of the node, and shows afterwards that there were none.

Must not read what lies on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cloner_agent.blockdevices import partitions_of
from cloner_agent.failures import StageError
from cloner_agent.host import Runner
from cloner_core.facts import Disk
from cloner_core.messages import Cause

# Documentation/block/stat.rst: sectors. Not requests: the empty flush of a mount counts as a write.
_WRITTEN, _DISCARDED = 6, 13


class Untouched:
    """The disks of a machine, from now on read-only."""

    def __init__(self, run: Runner, disks: Sequence[Disk], *, root: str = "/") -> None:
        """Take all disks and make them read-only, with their partitions; `root` stands before /sys.

        Raises StageError (DEVICE_BUSY) when something uses one: what it has written cannot be told from what is there.
        """
        self._sys = Path(root) / "sys/block"
        self._disks = [path for disk in disks if disk.size_bytes for path in (disk.path, *disk.paths)]
        if busy := [disk for disk in disks if disk.is_mounted or disk.held_by]:
            told = ", ".join(f"{disk.path} ({', '.join(disk.held_by) or 'mounted'})" for disk in busy)
            raise StageError(Cause.DEVICE_BUSY, f"in use before the capture began: {told}")
        self._before = {path: self._count(path) for path in self._disks}
        for path in self._disks:
            for device in (path, *(f"/dev/{one.name}" for one in partitions_of(self._home(path)))):
                run(("blockdev", "--setro", device))
                if run(("blockdev", "--getro", device)).stdout.strip() != "1":
                    raise StageError(Cause.TOOL, f"{device} did not become read-only")

    def require(self) -> None:
        """Raise StageError (TOOL) when one of the disks was written to since."""
        written = [path for path in self._disks if self._count(path) != self._before[path]]
        if written:
            raise StageError(
                Cause.TOOL,
                f"{', '.join(written)} was written to while it was captured, though it is read-only",
                hint="report it with the log of the task, and look at the filesystems of the node before it is used",
            )

    def _home(self, path: str) -> Path:
        return self._sys / path.removeprefix("/dev/").replace("/", "!")

    def _count(self, path: str) -> tuple[int, int]:
        try:
            numbers = [int(word) for word in (self._home(path) / "stat").read_text().split()]
        except (OSError, ValueError) as error:
            raise StageError(Cause.DISK_IO, f"{path} does not tell how much was written to it: {error}") from error
        return numbers[_WRITTEN], numbers[_DISCARDED] if len(numbers) > _DISCARDED else 0
