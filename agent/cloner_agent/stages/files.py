"""Restore and read-back: the version's files onto the target, then off it again and compared.

Wiring only; the work is `cloner_agent.restore`.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from cloner_agent.attempt import Attempt
from cloner_agent.failures import StageError
from cloner_agent.protocol import Server
from cloner_agent.reporter import Reporter
from cloner_agent.restore.arrivals import Arrivals, Parcels
from cloner_agent.restore.job import RestoreProgress, RestoreSummary
from cloner_agent.restore.job import restore as restore_tree
from cloner_agent.restore.readback import ReadBackProgress, beyond
from cloner_agent.restore.readback import read_back as read_tree_back
from cloner_agent.restore.table import SpilledTree, spill_tree
from cloner_agent.seating import leave, take_seat
from cloner_core.facts import Facts
from cloner_core.image.limits import MAX_RECORD_BYTES
from cloner_core.image.packmap import packs_digest
from cloner_core.messages import Cause
from cloner_core.steps import ReadBack, Restore

log = logging.getLogger(__name__)

_SEGMENT_BYTES = MAX_RECORD_BYTES + (1 << 20)


class ServerTree:
    """The segments of a tree from the server; implements `TreeSource`."""

    def __init__(self, server: Server, reporter: Reporter, total: int) -> None:
        self._server = server
        self._reporter = reporter
        self._total = total
        self._done = 0

    def segment(self, digest: bytes) -> bytes:
        """Return a compressed segment."""
        self._reporter.tick(self._done, self._total, "steps", "reading the tree")
        self._done += 1
        return self._server.segment(digest.hex(), _SEGMENT_BYTES)


def restore(attempt: Attempt, action: Restore) -> None:
    """Spill the tree to the target, then place every pack; each is verified before a byte of it is written."""
    tools, version, record = attempt.tools, attempt.version, attempt.record
    target = Path(tools.target)
    tree = ServerTree(tools.server, tools.reporter, len(version.root.segments))
    # The spilled tree lies in unnamed files of the target: gone when it is closed, or with the power.
    attempt.spilled = spill_tree(version.root, tree, target)

    try:
        if attempt.task.session and version.packs.packs:
            summary = _restore_arriving(attempt, attempt.spilled)
        else:
            source = tools.packs(attempt.task)
            show = _Shown(tools.reporter).progress
            summary = restore_tree(target, attempt.spilled, version.packs, source, workers=tools.workers, progress=show)
    except BaseException:
        _let_go(attempt)
        raise
    record.packs, record.files, record.bytes_restored = summary.packs, summary.inodes, summary.data_bytes
    # Every pack of the map came and none was written before its digest was right: `restore_tree` ends no other way.
    record.packs_digest, record.bytes_received = packs_digest(version.packs).hex(), summary.stored_bytes
    log.info("restored %d inodes, %d bytes from %d packs", summary.inodes, summary.data_bytes, summary.packs)


class _Shown:
    """What the restore says of itself: of its packs, and of the way they come."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._latest = RestoreProgress(0, 0, 0, 0, 0, 0)

    def progress(self, progress: RestoreProgress, way: str = "") -> None:
        self._latest = progress
        self.way(way)

    def way(self, text: str) -> None:
        now = self._latest
        words = [f"{now.packs} of {now.packs_total} packs, {now.files} files"] if now.packs_total else []
        if text:
            words.append(text)
        self._reporter.tick(now.stored_bytes, now.stored_bytes_total, "bytes", ", ".join(words))


def _booted_from(facts: Facts) -> str:
    """Return the interface the node booted from, "" when it is not known."""
    return next((nic.name for nic in facts.nics if nic.mac == facts.boot_mac), "")


def _restore_arriving(attempt: Attempt, spilled: SpilledTree) -> RestoreSummary:
    """Restore from the multicast session of the task, and over HTTPS what does not come there."""
    tools, packs = attempt.tools, attempt.version.packs
    shown = _Shown(tools.reporter)

    def sit() -> Parcels | str:
        version, nic = attempt.version.digest.hex(), _booted_from(attempt.facts)
        return take_seat(tools.server, version, packs, tools.multicast, shown.way, booted_from=nic)

    arrivals = Arrivals(
        sit,
        tools.packs(attempt.task),
        len(packs.packs),
        leave=lambda left: leave(tools.server, left),
        tick=shown.way,
    )
    summary = arrivals.restore(
        Path(tools.target),
        spilled,
        packs,
        workers=tools.workers,
        progress=lambda now: shown.progress(now, arrivals.text),
    )
    why = f"; the others over HTTPS: {arrivals.why}" if arrivals.came < len(packs.packs) else ""
    tools.reporter.note(f"{arrivals.came} of {len(packs.packs)} packs came by multicast{why}")
    return summary


def read_back(attempt: Attempt, action: ReadBack) -> None:
    """Read everything off the disk and compare; then let go of the tree, so that the target can be unmounted."""
    tools, spilled = attempt.tools, attempt.spilled
    if spilled is None:
        raise StageError(Cause.INTERNAL, "read-back without a restore")
    tools.machine.drop_caches()

    def show(progress: ReadBackProgress) -> None:
        tools.reporter.tick(progress.data_bytes, attempt.version.root.data_bytes, "bytes", f"{progress.inodes} files")

    mounts = [os.fsencode(mounted.mount.strip("/")) for mounted in attempt.plan.mounts if not mounted.is_kept]
    try:
        attempt.record.bytes_read_back = read_tree_back(
            Path(tools.target), spilled, workers=tools.workers, extra=beyond(spilled, mounts), progress=show
        )
    finally:
        _let_go(attempt)


def _let_go(attempt: Attempt) -> None:
    """Close the spilled tree: its open files would keep the target mounted."""
    if attempt.spilled is not None:
        attempt.spilled.table.close()
        attempt.spilled = None
