"""A limit on the memory of some processes together, page cache and kernel objects included, as a small machine has it.

A control group of either version makes it. Where none can be made the processes are measured only, and that is said.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_V1, _V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
_SAMPLE_S = 0.2
UNLIMITED = "nothing, measured only"
_REMOVE_TRIES = 25
_JOIN = 'echo $$ > "$0" && exec "$@"'


@dataclass(frozen=True, slots=True)
class _Names:
    """What one version of control groups calls things (kernel, Documentation/admin-guide/cgroup-v1, cgroup-v2.rst)."""

    parent: Path
    by: str
    limit: str
    anonymous: str  # in memory.stat
    kills: str  # the file with "oom_kill"


_VERSIONS = (
    _Names(_V1, "cgroup v1", "memory.limit_in_bytes", "rss", "memory.oom_control"),
    _Names(_V2, "cgroup v2", "memory.max", "anon", "memory.events"),
)


@dataclass
class MemoryBox:
    """The limit, and the most that was used while it was watched."""

    limit_bytes: int
    group: Path | None
    names: _Names
    anonymous_bytes: int = 0  # memory that no file backs, each page once
    resident_bytes: int = 0  # of all processes added up, pages they share counted for each
    _end: threading.Event = field(default_factory=threading.Event)

    @property
    def limited_by(self) -> str:
        """Return what holds the limit."""
        return self.names.by if self.group else UNLIMITED

    def argv(self, command: Sequence[str]) -> list[str]:
        """Return `command` so that it begins inside: whatever it allocates is counted."""
        if self.group is None:
            return list(command)
        return ["/bin/sh", "-c", _JOIN, str(self.group / "cgroup.procs"), *command]

    @contextmanager
    def watching(self, pid: int) -> Iterator[None]:
        """Measure process `pid` and its children until the block ends."""
        self._end.clear()
        watcher = threading.Thread(target=self._watch, args=(pid,))
        watcher.start()
        try:
            yield
        finally:
            self._end.set()
            watcher.join()

    def killed(self) -> int:
        """Return how many processes the limit killed."""
        return _words(self.group / self.names.kills).get("oom_kill", 0) if self.group else 0

    def _watch(self, pid: int) -> None:
        while not self._end.wait(_SAMPLE_S):
            with suppress(psutil.NoSuchProcess):
                parent = psutil.Process(pid)
                resident = sum(_resident(process) for process in (parent, *parent.children(recursive=True)))
                self.resident_bytes = max(self.resident_bytes, resident)
            if self.group:
                anonymous = _words(self.group / "memory.stat").get(self.names.anonymous, 0)
                self.anonymous_bytes = max(self.anonymous_bytes, anonymous)


@contextmanager
def memory_box(limit_bytes: int) -> Iterator[MemoryBox]:
    """Make a box; the processes in it must have ended, or be about to, when the block does."""
    made = _make_group(limit_bytes)
    try:
        yield made
    finally:
        if made.group:
            _remove(made.group)


def _remove(group: Path) -> None:
    for _ in range(_REMOVE_TRIES - 1):
        with suppress(OSError):  # busy until the last process is gone
            return group.rmdir()
        time.sleep(_SAMPLE_S)
    return group.rmdir()


def _make_group(limit_bytes: int) -> MemoryBox:
    for names in _VERSIONS:
        group = names.parent / f"cloner-soak-{os.getpid()}"
        if not (names.parent / "cgroup.procs").exists():
            continue
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / names.limit).write_text(str(limit_bytes))
        except OSError:
            group.rmdir()
            continue
        # Swap, where the machine has it, must not make the box larger.
        for name, value in (("memory.memsw.limit_in_bytes", limit_bytes), ("memory.swap.max", 0)):
            if (group / name).exists():
                (group / name).write_text(str(value))
        return MemoryBox(limit_bytes, group, names)
    return MemoryBox(limit_bytes, None, _VERSIONS[0])


def _resident(process: psutil.Process) -> int:
    with suppress(psutil.NoSuchProcess):
        return int(process.memory_info().rss)
    return 0


def _words(path: Path) -> Mapping[str, int]:
    pairs = (line.split() for line in path.read_text().splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}
