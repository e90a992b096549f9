"""A whole restore: skeleton, packs in any order, the rest, then everything on the disk."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cloner_agent.flushing import sync_filesystem
from cloner_agent.restore.errors import RestoreError, failed
from cloner_agent.restore.finishing import (
    Packless,
    finish_directories,
    finish_files,
    lock_inodes,
    make_links,
    make_skeleton,
)
from cloner_agent.restore.placer import Placed, Placer
from cloner_agent.restore.source import PackSource
from cloner_agent.restore.table import SpilledTree
from cloner_agent.restore.workers import Work, run, usual_workers
from cloner_agent.rooted import Rooted
from cloner_core.errors import IntegrityError
from cloner_core.image.digest import Bytes
from cloner_core.image.packmap import PackMap

_LOST_AND_FOUND = b"lost+found"

# One request after the other leaves the link idle between two, and whenever a pack takes longer to write than to fetch:
# two at once, and packs in store, keep 1 Gbit/s full (adr/0232).
FETCHED_AT_ONCE = 2  # by each worker
_AHEAD = 3


@dataclass(frozen=True, slots=True)
class RestoreProgress:
    """How far a restore is."""

    packs: int
    packs_total: int
    stored_bytes: int  # of the packs placed: what came over the wire
    stored_bytes_total: int
    data_bytes: int
    files: int


@dataclass(frozen=True, slots=True)
class RestoreSummary:
    """What a restore made."""

    inodes: int
    packs: int
    stored_bytes: int
    data_bytes: int


def _ignore(_: RestoreProgress) -> None:
    pass


Order = Iterable[int | None]
"""Packs of the map by ordinal, in any order, some maybe twice; None says that there is none yet (`workers.run`)."""


class _PlacePacks(Work[int, tuple[Bytes, Bytes], Placed]):
    ahead = _AHEAD
    at_once = FETCHED_AT_ONCE

    def __init__(
        self,
        target: Rooted,
        spilled: SpilledTree,
        pack_map: PackMap,
        source: PackSource,
        *,
        release: Callable[[int], None],
        done: memoryview,
        gate: _Gate,
    ) -> None:
        self._release = release
        self._gate = gate
        self._has_passed = False
        self._target = target
        self._spilled = spilled
        self.pack_map = pack_map
        self._source = source
        self._done = done
        self._placer: Placer

    def start(self) -> None:
        self._gate.enter()
        os.umask(0)
        self._placer = Placer(Rooted(self._target.fd), self._spilled.table, self.pack_map.version)

    def prepare(self, task: int) -> tuple[Bytes, Bytes]:
        return self._source.fetch(task, self.pack_map.packs[task])

    def perform(self, task: int, prepared: tuple[Bytes, Bytes]) -> Placed:
        if not self._has_passed:
            self._gate.wait()
            self._has_passed = True
        placed, finished = self._placer.place(self.pack_map.packs[task], *prepared)
        self._release(task)
        for number in finished:
            self._done[number] = 1
        return placed


def restore(
    target: Path,
    spilled: SpilledTree,
    pack_map: PackMap,
    source: PackSource,
    *,
    order: Callable[[], Order] | None = None,
    release: Callable[[int], None] = lambda _: None,
    workers: int | None = None,
    progress: Callable[[RestoreProgress], None] = _ignore,
) -> RestoreSummary:
    """Restore a verified tree beneath `target`, whose filesystems are all mounted, and make it durable.

    `order` is called when the first pack can be placed, before there are workers; what it gives may wait for the next
    pack. Without it they come in the order of the map. `release` is called in a worker when a pack was written, and
    nobody looks any more at what the source gave. `workers` is the number of processes, `usual_workers` when None.
    Raises IntegrityError for bytes that are not of this version, RestoreError for a target that fails.
    """
    count = workers or usual_workers()
    with Rooted(target) as rooted, _Shared(spilled.table.count + 1) as done, _Gate(count) as gate:
        _require_fresh(rooted)
        previous_umask = os.umask(0)
        try:
            total = len(pack_map.packs)

            def prepare_target() -> None:
                make_skeleton(rooted, spilled)
                rooted.forget_directories()
                gate.open()

            place_work = _PlacePacks(rooted, spilled, pack_map, source, release=release, done=done, gate=gate)
            if order is None:
                tasks = _meanwhile(iter(range(total)), count * (1 + place_work.ahead), prepare_target)
            else:
                prepare_target()  # before: others wait for a node that has its seat
                tasks = _once(order(), total)
            packless = Packless(rooted, spilled, done)
            parts, data_bytes = _place_packs(place_work, tasks, count, progress, packless)
            with _Flushing(rooted.fd):
                finish_files(rooted, spilled, done, parts)
                make_links(rooted, spilled)
                devices = finish_directories(rooted, spilled)
            lock_inodes(rooted, spilled)
        finally:
            os.umask(previous_umask)
        _sync(rooted, devices.values())
    stored = sum(pack.stored_size for pack in pack_map.packs)
    return RestoreSummary(spilled.table.count, len(pack_map.packs), stored, data_bytes)


class _Shared:
    """One byte for each inode, shared with the workers: 1 when a file is complete."""

    def __init__(self, size: int) -> None:
        self._map = mmap.mmap(-1, size)
        self._view = memoryview(self._map)

    def __enter__(self) -> memoryview:
        return self._view

    def __exit__(self, *_: object) -> None:
        self._view.release()
        self._map.close()


def _place_packs(
    work: _PlacePacks, tasks: Order, workers: int, progress: Callable[[RestoreProgress], None], packless: Packless
) -> tuple[dict[int, int], int]:
    """Return the chunks written of each file that needed several packs, and the bytes written in all."""
    sizes = [pack.stored_size for pack in work.pack_map.packs]
    total, stored_total = len(sizes), sum(sizes)
    parts: dict[int, int] = {}
    packs = stored = data = files = 0
    progress(RestoreProgress(0, total, 0, stored_total, 0, 0))
    for ordinal, placed in run(work, tasks, workers):
        packs += 1
        stored += sizes[ordinal]
        data += placed.data_bytes
        files += placed.finished
        for number, chunks in placed.partial:
            parts[number] = parts.get(number, 0) + chunks
        packless.make(packs, total)  # the workers have packs in store meanwhile
        progress(RestoreProgress(packs, total, stored, stored_total, data, files))
    packless.make(total, total)
    if packs != total:
        raise IntegrityError(f"only {packs} of {total} packs came")
    return parts, data


def _once(order: Order, total: int) -> Iterator[int | None]:
    seen: set[int] = set()
    for ordinal in order:
        if ordinal is None:
            yield None
            continue
        if not 0 <= ordinal < total:
            raise IntegrityError(f"pack {ordinal} is not in the map of {total}")
        if ordinal not in seen:
            seen.add(ordinal)
            yield ordinal


def _require_fresh(rooted: Rooted, directory: bytes = b"") -> None:
    """Raise RestoreError when the target holds more than directories: mkfs and mounts make nothing else."""
    for name in rooted.listdir(directory):
        path = directory + b"/" + name if directory else name
        if name == _LOST_AND_FOUND:
            continue
        if not stat.S_ISDIR(rooted.lstat(path).st_mode):
            raise RestoreError(
                f"the target is not empty: it holds /{os.fsdecode(path)}", hint="restore onto filesystems made anew"
            )
        _require_fresh(rooted, path)


class _Gate:
    """Where workers wait, packs in hand, until the target has its directories."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._passing, self._opening = os.pipe()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._passing)
        os.close(self._opening)

    def open(self) -> None:
        """Let each of the workers pass once."""
        os.write(self._opening, bytes(self._workers))

    def enter(self) -> None:
        """Be a worker, which would else keep itself from seeing that nobody opens any more."""
        os.close(self._opening)

    def wait(self) -> None:
        """Return when it is open; for a worker, once. Raises EOFError when whoever opens it is gone."""
        if not os.read(self._passing, 1):
            raise EOFError


def _meanwhile(tasks: Iterator[int | None], first: int, work: Callable[[], None]) -> Iterator[int | None]:
    """Give the tasks; do `work` once, when all but one of the `first` are given."""
    count = 0
    for count, task in enumerate(tasks, 1):
        if count == first:
            work()
        yield task
    if count < first:
        work()


class _Flushing:
    """Has the root filesystem written to its disk meanwhile: most of what is left for the sync at the end.

    A write that failed is told to one of the two only, so this one raises as well.
    """

    def __init__(self, root_fd: int) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._written = self._thread.submit(self._write, root_fd)

    @staticmethod
    def _write(root_fd: int) -> None:
        with Rooted(root_fd) as rooted:  # its own: the other thread's descriptors come and go
            _sync(rooted, (b"",))

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown()
        if kind is None:
            self._written.result()


def _sync(rooted: Rooted, directories: Iterable[bytes]) -> None:
    """Put everything on the disk, one directory for each filesystem; a write that failed since the mount shows here."""
    for directory in directories:
        try:
            sync_filesystem(rooted.directory(directory))
        except OSError as error:
            raise failed("write to the disk of", directory, error) from error
