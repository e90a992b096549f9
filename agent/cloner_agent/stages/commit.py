"""The commit: leave of the server, the ESP made bootable, the receipt, the restart.

Until `activate_esp` nothing on the disk boots; the order of its effects is what survives a power cut.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
from collections.abc import Sequence
from typing import Literal

from blake3 import blake3

from cloner_agent.attempt import Attempt, Record
from cloner_agent.failures import StageError
from cloner_agent.rooted import Rooted
from cloner_agent.stages.disks import sync_mounts
from cloner_agent.stages.nvram import put_network_first
from cloner_core.describing import sendable
from cloner_core.messages import Cause, ReceiptBody, Stage, StageRate, StageTime
from cloner_core.plan import plan_digest, written_by
from cloner_core.steps import STAGING, ActivateEsp, Commit, SendReceipt

log = logging.getLogger(__name__)

_PIECE_BYTES = 1 << 20
_MB = 1_000_000


def ask(attempt: Attempt, action: Commit) -> None:
    """Ask the server for leave; from then on orders to abort are not heard, because half is worse than done."""
    attempt.tools.machine.sync()
    sync_mounts(attempt)
    attempt.tools.server.commit()
    attempt.tools.reporter.commit()


def activate_esp(attempt: Attempt, action: ActivateEsp) -> None:
    """Unbind the staging folder, move its children up, make that durable, and read every byte of it back.

    Before that the firmware is to ask the network first: until the receipt is stored nobody knows that the disk boots.
    """
    where = attempt.path(action.where)
    with Rooted(where) as staged:
        wanted = tree_digests(staged, b"")
    if not wanted:
        raise StageError(Cause.NOT_BOOTABLE, f"nothing was staged for {action.where}")
    put_network_first(attempt)
    for device in action.copies:
        _copy_esp(attempt, device, where, wanted)
    attempt.tools.run(("umount", where))
    with Rooted(where) as esp:
        _activate(esp)
    attempt.tools.machine.sync()
    attempt.tools.machine.drop_caches()
    with Rooted(where) as esp:
        seen = tree_digests(esp, b"")
    if seen != wanted:
        differing = sorted(os.fsdecode(path) for path, _ in wanted.items() ^ seen.items())
        raise StageError(Cause.READBACK, f"{action.where} differs after the move: {', '.join(differing[:5])}")


def _activate(esp: Rooted) -> None:
    """Rename the staged children into the root; EFI last: firmware looks for nothing else, so that makes it boot."""
    folder = STAGING.encode()
    for name in sorted(esp.listdir(folder), key=lambda name: (name.upper() == b"EFI", name)):
        esp.rename(folder + b"/" + name, name)
    os.rmdir(folder, dir_fd=esp.fd)


def _copy_esp(attempt: Attempt, device: str, where: str, wanted: dict[bytes, bytes]) -> None:
    """Fill the ESP of another disk with what is staged at `where`, and make it bootable as the first one is."""
    run, place = attempt.tools.run, attempt.tools.esp_copy
    run(("mkdir", "-p", place))
    run(("mount", "-t", "vfat", "-o", "umask=0077", device, place))
    try:
        with Rooted(where) as staged, Rooted(place) as copy:
            for path in wanted:
                _copy_file(staged, copy, path, STAGING.encode() + b"/" + path)
            attempt.tools.machine.sync()
            _activate(copy)
        attempt.tools.machine.sync()
        attempt.tools.machine.drop_caches()
        with Rooted(place) as copy:
            seen = tree_digests(copy, b"")
    finally:
        run(("umount", place))
    if seen != wanted:
        differing = sorted(os.fsdecode(path) for path, _ in wanted.items() ^ seen.items())
        raise StageError(Cause.READBACK, f"the copy of the ESP on {device} differs: {', '.join(differing[:5])}")


def _copy_file(source: Rooted, target: Rooted, path: bytes, to: bytes) -> None:
    target.mkdir(os.path.dirname(to))
    reading = os.fdopen(source.open(path, os.O_RDONLY, follow=False), "rb")
    with reading, os.fdopen(target.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, follow=False), "wb") as writing:
        shutil.copyfileobj(reading, writing, _PIECE_BYTES)
        writing.flush()
        os.fsync(writing.fileno())


def tree_digests(tree: Rooted, path: bytes) -> dict[bytes, bytes]:
    """Return BLAKE3 by path of every file beneath `path`, read past the page cache where the kernel lets go of it."""
    found: dict[bytes, bytes] = {}
    for name in tree.listdir(path):
        child = path + b"/" + name if path else name
        mode = tree.lstat(child).st_mode
        if stat.S_ISDIR(mode):
            found |= tree_digests(tree, child)
        else:
            found[child] = _file_digest(tree, child)
    return found


def _file_digest(tree: Rooted, path: bytes) -> bytes:
    fd = tree.open(path, os.O_RDONLY, follow=False)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        hasher = blake3()
        while piece := os.read(fd, _PIECE_BYTES):
            hasher.update(piece)
        digest: bytes = hasher.digest()
        return digest
    finally:
        os.close(fd)


def send_receipt(attempt: Attempt, action: SendReceipt) -> None:
    """Tell the server what was done, until it is stored; then netboot is `local`."""
    attempt.tools.server.receipt(receipt_body(attempt))


def receipt_body(attempt: Attempt) -> ReceiptBody:
    """Return the record as the server keeps it."""
    record, plan, task = attempt.record, attempt.plan, attempt.task
    written = written_by(plan)
    times = attempt.tools.reporter.times()
    return ReceiptBody(
        task_id=task.task_id,
        attempt_id=task.attempt_id,
        node=task.node,
        version_digest=task.version.digest,
        layout=written.layout,
        plan_digest=plan_digest(plan),
        disks=written.disks,
        packs=record.packs,
        files=record.files,
        bytes_restored=record.bytes_restored,
        bytes_read_back=record.bytes_read_back,
        identity=_sendable(record.identity),
        rewritten=_sendable(record.rewritten),
        machine_id=record.machine_id,
        host_key_fingerprints=record.host_key_fingerprints,
        root_part_uuid=written.root_part_uuid,
        nvram_before=_sendable(record.nvram_before),
        nvram_after=_sendable(record.nvram_after),
        stages=times,
        notes=_sendable((*plan.notes, *attempt.tools.reporter.notes)),
        packs_digest=record.packs_digest,
        rates=rates(record, times),
        scripts=tuple(record.scripts),
    )


def rates(record: Record, times: Sequence[StageTime]) -> tuple[StageRate, ...]:
    """Return how fast the stages that move bytes were; a stage that took no time has no rate."""
    moved: tuple[tuple[Stage, Literal["received", "written", "read"], int], ...] = (
        (Stage.RESTORE, "received", record.bytes_received),
        (Stage.RESTORE, "written", record.bytes_restored),
        (Stage.READBACK, "read", record.bytes_read_back),
    )
    seconds = {time.stage: time.seconds for time in times if time.seconds > 0}
    return tuple(
        StageRate(stage=stage, moved=how, bytes=count, mb_per_s=round(count / seconds[stage] / _MB, 3))
        for stage, how, count in moved
        if stage in seconds
    )


def _sendable(texts: tuple[str, ...]) -> tuple[str, ...]:
    """A disk that is ready must not stay without a receipt for the name of a file."""
    return tuple(map(sendable, texts))
