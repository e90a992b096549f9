"""Waits until the kernel shows a partition where the plan has it.

Must not write to a disk: the table was written before.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from cloner_agent.failures import StageError
from cloner_agent.host import Runner, ToolError
from cloner_core.messages import Cause

log = logging.getLogger(__name__)

_DEVICE_WAIT_S = 30.0
_NUDGE_S = 2.0


class WaitForDevice(Protocol):
    """The seam of this module."""

    def __call__(self, device: str, disk: str, run: Runner, *, place: tuple[int, int]) -> None:
        """See `wait_for_device`."""


def wait_for_device(
    device: str,
    disk: str,
    run: Runner,
    *,
    place: tuple[int, int],
    timeout_s: float = _DEVICE_WAIT_S,
    root: str = "/",
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Return when `device` is a block device at `place`: start and size in sectors of 512 bytes.

    The kernel makes partitions when it re-reads the table and devtmpfs shows them a moment later. Where the re-read
    lost a race, partx hands the kernel the table again. A kernel that kept the old table (sfdisk ends with status 0
    all the same) would have us format a place where the next boot finds nothing; the place is what tells.
    `root` stands before /sys. Raises StageError (DISK_IO, DEVICE_BUSY) when the device never comes to its place.
    """
    deadline = clock() + timeout_s
    nudge = clock() + _NUDGE_S if _place(device, root) == place else clock()
    while not (_is_block(device) and _place(device, root) == place):
        now = clock()
        if now >= deadline:
            seen = _place(device, root)
            if seen is None or seen == place:
                told = f"{device} did not appear within {timeout_s:g} s of partitioning {disk}"
                raise StageError(Cause.DISK_IO, told)
            told = f"{device} still lies at {seen[0]}+{seen[1]} sectors, {place[0]}+{place[1]} wanted"
            raise StageError(Cause.DEVICE_BUSY, f"{told}: the kernel keeps the old partition table of {disk}")
        if now >= nudge:
            nudge = now + _NUDGE_S
            try:
                run(("partx", "--update", disk))
            except ToolError as error:
                log.debug("%s", error)
        sleep(0.1)


def _place(device: str, root: str) -> tuple[int, int] | None:
    """Return where the kernel believes a partition lies; None when it knows none of that name."""
    known = Path(root) / "sys/class/block" / device.removeprefix("/dev/")
    try:
        return int((known / "start").read_text()), int((known / "size").read_text())
    except (OSError, ValueError):
        return None


def _is_block(device: str) -> bool:
    try:
        return stat.S_ISBLK(os.stat(device).st_mode)
    except OSError:
        return False
