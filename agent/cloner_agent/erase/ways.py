"""Erases one disk in one way: the only place that maps a way to what is done.

Must not choose the way, nor say that it was done: that is the witness's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from cloner_agent.erase.ata import secure_erase
from cloner_agent.erase.nvme import format_namespace, sanitize
from cloner_agent.erase.overwriting import overwrite
from cloner_agent.host import Runner, ToolError
from cloner_core.erasing.words import Way
from cloner_core.facts import Disk

_DISCARD_S = 12 * 3600.0


@dataclass(frozen=True, slots=True)
class Means:
    """What erasing works with."""

    run: Runner
    progress: Callable[[float], None]  # told the share of a disk that is done; raises to end the work
    sleep: Callable[[float], None] = time.sleep


def erase_by(means: Means, disk: Disk, way: Way, passes: int) -> tuple[str, ...]:
    """Erase `disk`; returns what the device says of it. Raises what stops it."""
    if way in (Way.SANITIZE_BLOCK, Way.SANITIZE_CRYPTO):
        return sanitize(means.run, disk.path, way, progress=means.progress, sleep=means.sleep)
    if way in (Way.FORMAT, Way.FORMAT_CRYPTO):
        return format_namespace(means.run, disk.path, way)
    if way in (Way.ATA, Way.ATA_ENHANCED):
        return secure_erase(means.run, disk.path, way)
    if way is Way.DISCARD:
        return _discard(means.run, disk)
    _overwrite(means, disk, passes)
    return (f"overwritten in {passes} pass{'es' * (passes != 1)}, the last one of zeroes",)


def _overwrite(means: Means, disk: Disk, passes: int) -> None:
    written = 0

    def wrote(count: int) -> None:
        nonlocal written
        written += count
        means.progress(written / (disk.size_bytes * passes))

    overwrite(disk.path, disk.size_bytes, passes, wrote)


def _discard(run: Runner, disk: Disk) -> tuple[str, ...]:
    """Discard all of it. `--force`: what holds the disk was stopped, and old signatures are no reason to stop."""
    if disk.bus == "mmc":
        try:
            run(("blkdiscard", "--force", "--secure", disk.path), timeout_s=_DISCARD_S)
        except ToolError:
            pass  # a card without secure trim; its plain one is read back in whole all the same
        else:
            return ("blkdiscard --secure: the card took it",)
    run(("blkdiscard", "--force", disk.path), timeout_s=_DISCARD_S)
    return ("blkdiscard: the disk took it",)
