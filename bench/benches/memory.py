"""Memory: how much a program and its children have at most (PSS), and free memory that costs each run the same."""

from __future__ import annotations

import mmap
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

_EVERY_S = 0.05
_WARM_BYTES = 4 << 30
_PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Peak:
    """The most seen at any moment."""

    pss_bytes: int  # of all processes together; shared pages counted once
    rss_bytes: int  # of the largest process


def warm() -> None:
    """Touch free memory of the machine and give it back.

    A hypervisor takes free memory away (free page reporting), and whoever needs it next pays for it: seen to make the
    same run 1.5 times as long, whichever competitor it hit.
    """
    size = min(_WARM_BYTES, psutil.virtual_memory().available // 2)
    with mmap.mmap(-1, size) as memory:
        for offset in range(0, size, _PAGE_BYTES):
            memory[offset] = 1


def peak_of(argv: Sequence[str]) -> Peak:
    """Run a program and return its peak; exits the bench when it fails.

    The looking slows the program, so this is not for timing.
    """
    process = subprocess.Popen(argv)
    ended = threading.Event()
    pss = rss = 0

    def watch() -> None:
        nonlocal pss, rss
        while not ended.wait(_EVERY_S):
            sizes = [_size(pid) for pid in _family(process.pid)]
            pss = max(pss, sum(own for own, _ in sizes))
            rss = max([rss, *(resident for _, resident in sizes)])

    watcher = threading.Thread(target=watch)
    watcher.start()
    status = process.wait()
    ended.set()
    watcher.join()
    if status:
        sys.exit(f"bench: {' '.join(argv)} failed with status {status}")
    return Peak(pss, rss)


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _size(process: psutil.Process) -> tuple[int, int]:
    try:
        info = process.memory_full_info()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return 0, 0
    return info.pss, info.rss
