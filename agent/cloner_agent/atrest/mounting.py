"""Mounts filesystems so that nothing is written: read-only, and none whose journal waits to be replayed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cloner_agent.failures import StageError
from cloner_agent.host import Runner, ToolError
from cloner_core.messages import Cause

log = logging.getLogger(__name__)

_MOUNT_S = 120.0
_SAFE = ("ro", "nosuid", "nodev", "noexec")
# Of a read-only device the kernel refuses to mount what only a write would put right: fs/ext4/super.c,
# ext4_load_journal(); fs/xfs/xfs_log_recover.c, xlog_recover(); fs/btrfs/disk-io.c, btrfs_replay_log(). With these
# it does mount it, as it was when the power went: parts of it new, parts old.
_AS_IT_WAS = {"ext3": "noload", "ext4": "noload", "xfs": "norecovery", "btrfs": "rescue=nologreplay"}
_STATES = {"ext2", "ext3", "ext4"}


class UncleanError(StageError):
    """A filesystem was not unmounted."""

    def __init__(self, device: str, kind: str, why: str) -> None:
        super().__init__(
            Cause.UNCLEAN, f"the {kind} on {device} was not cleanly unmounted ({why}), so it is not captured"
        )


def mount_clean(run: Runner, device: str, kind: str, where: str, options: Sequence[str] = ()) -> None:
    """Mount the filesystem on `device`, which must be read-only.

    Raises UncleanError, or ToolError for any other reason. Of FAT, which has no journal, nothing is asked.
    """
    if kind in _STATES:
        _require_clean(run, device, kind)
    try:
        _mount(run, device, kind, where, (*_SAFE, *options))
    except ToolError as refusal:
        if (as_it_was := _AS_IT_WAS.get(kind)) is None:
            raise
        try:
            _mount(run, device, kind, where, (*_SAFE, as_it_was, *options))
        except ToolError:
            raise refusal from None
        run(("umount", where))
        raise UncleanError(device, kind, "its journal is to be replayed") from refusal


@contextmanager
def mounted_clean(run: Runner, device: str, kind: str, where: str, options: Sequence[str] = ()) -> Iterator[None]:
    """Have it mounted for a while; see `mount_clean`."""
    mount_clean(run, device, kind, where, options)
    try:
        yield
    finally:
        run(("umount", where))


def _mount(run: Runner, device: str, kind: str, where: str, options: Sequence[str]) -> None:
    run(("mount", "-t", kind, "-o", ",".join(options), device, where), timeout_s=_MOUNT_S)


def _require_clean(run: Runner, device: str, kind: str) -> None:
    """Raise UncleanError unless the superblock says that it was unmounted.

    One without a journal would be mounted all the same.
    """
    told = run(("dumpe2fs", "-h", device)).stdout
    said = dict(line.split(":", 1) for line in told.splitlines() if ":" in line)
    if "needs_recovery" in said.get("Filesystem features", "").split():
        raise UncleanError(device, kind, "its journal is to be replayed")
    if (state := said.get("Filesystem state", "clean").strip()) != "clean":
        raise UncleanError(device, kind, f"its state is '{state}'")
