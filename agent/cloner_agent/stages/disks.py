"""Guard, partitioning, filesystems and mounts: the steps that work on devices.

Must not open files of the clone; the programs are those the plan shows.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from cloner_agent.attempt import Attempt
from cloner_agent.failures import StageError
from cloner_agent.holders import stop_holders
from cloner_agent.host import Runner, ToolError
from cloner_core.messages import Cause, Stage
from cloner_core.plan import foreign_identifiers
from cloner_core.steps import STAGING, Command, Guard, Mount, StageEsp, StopHolders

log = logging.getLogger(__name__)

_DEVICE_WAIT_S = 30.0
_NUDGE_S = 2.0
_SYSFS_SECTOR_BYTES = 512  # whatever the disk's own are: Documentation/block/stat.rst


def guard(attempt: Attempt, action: Guard) -> None:
    """Look at the machine again: the chosen disks are still those planned for, and nothing else has their names."""
    facts = attempt.tools.probe()
    found = foreign_identifiers(attempt.plan, facts)
    if found:
        raise StageError(Cause.FOREIGN_UUID, f"an identifier of this deploy is on another disk: {'; '.join(found)}")
    present = {disk.path: disk for disk in facts.disks}
    for path in action.disks:
        before = next((disk for disk in attempt.facts.disks if disk.path == path), None)
        now = present.get(path)
        same = before and now and (before.serial, before.size_bytes) == (now.serial, now.size_bytes)
        if not same:
            raise StageError(Cause.NO_DISK, f"{path} is not the disk any more that the plan was made for")


def stop(attempt: Attempt, action: StopHolders) -> None:
    """Release the disk."""
    stop_holders(action.disk, attempt.tools.run)


def command(attempt: Attempt, action: Command) -> None:
    """Run one program of the plan; partitions it names are waited for."""
    planned = {partition.device: (disk.disk, partition) for disk in attempt.plan.disks for partition in disk.partitions}
    # Not for wipefs, which names partitions of the old table.
    for word in action.argv[1:] if attempt.tools.reporter.stage is not Stage.PARTITION else ():
        if word in planned:
            disk, partition = planned[word]
            unit = disk.sector_bytes // _SYSFS_SECTOR_BYTES
            place = partition.start_sectors * unit, partition.size_sectors * unit
            wait_for_device(word, disk.path, attempt.tools.run, place=place)
    attempt.tools.run(action.argv, stdin=action.stdin, timeout_s=action.timeout_s)


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


def mount(attempt: Attempt, action: Mount) -> None:
    """Mount a filesystem just made; its mount point lies on filesystems just made, so no link can mislead."""
    where = attempt.path(action.where)
    run = attempt.tools.run
    run(("mkdir", "-p", where))
    options = ("-o", action.options) if action.options else ()
    run(("mount", "-t", action.filesystem, *options, action.device, where))
    if not os.path.ismount(where):
        raise StageError(Cause.TOOL, f"{where} is not a mount point after mount succeeded")


def stage_esp(attempt: Attempt, action: StageEsp) -> None:
    """Hide the ESP behind a folder of its own, so that nothing written before commit can boot."""
    where = attempt.path(action.where)
    attempt.tools.run(("mkdir", f"{where}/{STAGING}"))
    attempt.tools.run(("mount", "--bind", f"{where}/{STAGING}", where))


def unmount_all(run: Runner, target: str) -> None:
    """Unmount everything at and beneath `target`, children first."""
    listed = run(("findmnt", "--json", "--list", "--output", "TARGET"), accept=(0, 1)).stdout
    mounted = [entry["target"] for entry in json.loads(listed or "{}").get("filesystems", [])]
    for where in reversed(mounted):
        if where == target or where.startswith(f"{target}/"):
            run(("umount", where))


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
