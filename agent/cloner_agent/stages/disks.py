"""Guard, partitioning, filesystems and mounts: the steps that work on devices.

Must not open files of the clone; the programs are those the plan shows.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable

from cloner_agent.attempt import Attempt
from cloner_agent.failures import StageError
from cloner_agent.host import Runner
from cloner_agent.restore.errors import failed
from cloner_agent.rooted import Rooted
from cloner_agent.stages.nvram import require_variables
from cloner_core.messages import Cause, Stage
from cloner_core.plan import PlanError, foreign_identifiers
from cloner_core.plan.guarding import refuse_what_others_share
from cloner_core.steps import STAGING, Command, Guard, Mount, StageEsp, StopHolders

_SYSFS_SECTOR_BYTES = 512  # whatever the disk's own are: Documentation/block/stat.rst


def guard(attempt: Attempt, action: Guard) -> None:
    """Look at the machine again: the chosen disks are still those planned for, and nothing else has their names.

    A firmware without variables stops here too, before anything is destroyed.
    """
    require_variables(attempt)
    facts = attempt.tools.probe()
    found = foreign_identifiers(attempt.plan, facts)
    if found:
        raise StageError(Cause.FOREIGN_UUID, f"an identifier of this deploy is on another disk: {'; '.join(found)}")
    try:
        refuse_what_others_share(attempt.plan, facts)
    except PlanError as error:
        raise StageError(error.cause, error.message, hint=error.hint) from error
    present = {disk.path: disk for disk in facts.disks}
    for path in action.disks:
        before = next((disk for disk in attempt.facts.disks if disk.path == path), None)
        now = present.get(path)
        same = before and now and (before.serial, before.size_bytes) == (now.serial, now.size_bytes)
        if not same:
            raise StageError(Cause.NO_DISK, f"{path} is not the disk any more that the plan was made for")


def stop(attempt: Attempt, action: StopHolders) -> None:
    """Release the disk on each of its paths."""
    further = [path for disk in attempt.facts.disks if disk.path == action.disk for path in disk.paths]
    for path in (action.disk, *further):
        attempt.tools.stop_holders(path, attempt.tools.run)


def command(attempt: Attempt, action: Command) -> None:
    """Run one program of the plan; partitions it names are waited for."""
    # Not for wipefs, which names partitions of the old table.
    if attempt.tools.reporter.stage is not Stage.PARTITION:
        wait_planned(attempt, action.argv[1:])
    attempt.tools.run(action.argv, stdin=action.stdin, timeout_s=action.timeout_s)


def wait_planned(attempt: Attempt, words: Iterable[str]) -> None:
    """Return when the kernel has each of `words` that is a partition of the plan where the plan has it."""
    planned = {partition.device: (disk.disk, partition) for disk in attempt.plan.disks for partition in disk.partitions}
    for word in words:
        if word in planned:
            disk, partition = planned[word]
            unit = disk.sector_bytes // _SYSFS_SECTOR_BYTES
            place = partition.start_sectors * unit, partition.size_sectors * unit
            attempt.tools.wait_for_device(word, disk.path, attempt.tools.run, place=place)


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


def sync_mounts(attempt: Attempt) -> None:
    """Put what was written to the clone on its disks; raises RestoreError for a write that failed since the restore.

    Without this nobody hears of one that the kernel does later than the program asked for it: sync(2) tells nothing,
    and what is read again comes from memory.
    """
    with Rooted(attempt.tools.target) as tree:
        for mounted in attempt.plan.mounts:
            directory = os.fsencode(mounted.mount.strip("/"))
            if mounted.is_kept:
                continue
            try:
                fd = tree.directory(directory)
                attempt.tools.machine.sync_filesystem(fd)
                if os.fstatvfs(fd).f_flag & os.ST_RDONLY:  # ext4 after an error of the disk; its sync ends well then
                    raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            except OSError as error:
                raise failed("write to the disk of", directory, error) from error


def unmount_all(run: Runner, target: str) -> None:
    """Unmount everything at and beneath `target`, children first."""
    listed = run(("findmnt", "--json", "--list", "--output", "TARGET"), accept=(0, 1)).stdout
    mounted = [entry["target"] for entry in json.loads(listed or "{}").get("filesystems", [])]
    for where in reversed(mounted):
        if where == target or where.startswith(f"{target}/"):
            run(("umount", where))
