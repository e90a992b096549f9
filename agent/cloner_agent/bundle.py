"""Gathers the bundle of a failure: logs, disks with their SMART data, tables before and after, boot entries, links.

Only reads, and never holds anything up: every look has a time limit, and all of them together one more. What may be
shown of it is decided in `cloner_core.bundle`.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from cloner_agent.efivars import EfiVars
from cloner_agent.host import Runner
from cloner_agent.links import describe_interfaces
from cloner_core.bundle import Bundle, Part, make_bundle
from cloner_core.diskerrors import find_disk_errors, smart_summary
from cloner_core.errors import ClonerError
from cloner_core.facts import Facts
from cloner_core.mending import remedy
from cloner_core.messages import Cause, Failure
from cloner_core.nvram import describe, read_nvram

log = logging.getLogger(__name__)

_TAIL_BYTES = 192 << 10
_TOOL_S = 5.0
_BEFORE_S, _AFTER_S, _DISK_S = 15.0, 40.0, 12.0  # of all looks together
_CLOCKS_S = 2.0  # the kernel's log is stamped by another clock, which drifts a little
_SHOWN_ERRORS = 3
_PERHAPS_DISK = (Cause.TOOL, Cause.NOT_BOOTABLE)
_ANY_STATUS = range(256)  # smartctl(8): a bit mask that tells of the disk, not of the run
_COLUMNS = "NAME,MAJ:MIN,SIZE,RO,RM,TYPE,TRAN,MODEL,SERIAL,PTTYPE,PARTUUID,FSTYPE,UUID,LABEL,MOUNTPOINTS,STATE"
_KMSG_RECORD_BYTES = 16 << 10  # a record is at most 8 KiB or so: kernel/printk/printk.c, PRINTKRB_RECORD_MAX

Look = Callable[[], str]


class LogTail(logging.Handler):
    """Keeps the last lines of the agent's log in memory."""

    def __init__(self, level: int = logging.INFO, clock: Callable[[], float] = time.time) -> None:
        super().__init__(level)
        self._clock = clock
        self._lines: deque[str] = deque()
        self._bytes = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record's text and forget the oldest beyond 192 KiB."""
        line = f"{self._clock():.3f} {record.levelname.lower():7} {record.getMessage()}"[:_TAIL_BYTES]
        self._lines.append(line)
        self._bytes += len(line)
        while self._bytes > _TAIL_BYTES:
            self._bytes -= len(self._lines.popleft())

    def text(self) -> str:
        """Return what is kept."""
        return "\n".join(self._lines)


class Gatherer:
    """Looks at the machine once before anything is touched, and once after a failure."""

    def __init__(
        self,
        run: Runner,
        efivars: EfiVars,
        tail: LogTail,
        *,
        root: str = "/",
        kernel_log: Look | None = None,
        screen: Look | None = None,
        clock: Callable[[], float] = time.time,
        uptime: Callable[[], float] = time.monotonic,
    ) -> None:
        """`root` stands before /proc and /sys; `kernel_log` replaces /dev/kmsg; `screen` is what a person saw last."""
        self._run = run
        self._efivars = efivars
        self._tail = tail
        self._root = Path(root)
        self._kernel_log = kernel_log or kernel_log_tail
        self._screen = screen
        self._clock = clock
        self._since_s = uptime() - _CLOCKS_S
        self._disks: tuple[str, ...] = ()
        self._before: list[Part] = []
        self._is_seen = False
        self._secrets: set[str] = set()

    def hide(self, *secrets: str) -> None:
        """Have these replaced wherever they stand in a bundle."""
        self._secrets.update(secrets)

    def see(self, facts: Facts) -> None:
        """Remember partition tables and boot entries as they are now; only the first time, before the first write."""
        if self._is_seen:
            return
        self._is_seen = True
        self._disks = tuple(disk.path for disk in facts.disks)
        looks = [("tables-before", self._tables), ("boot-entries-before", self._boot_entries)]
        self._before = gather(looks, _BEFORE_S)

    def bundle(self, failure: Failure, *, agent_version: str) -> Bundle:
        """Return the bundle of `failure`; whatever could not be looked at says so in its part."""
        looks: list[tuple[str, Look]] = [
            *([("last-screen", self._screen)] if self._screen is not None else []),
            ("log", self._tail.text),
            ("kernel-log", self._kernel_log),
            ("command-line", self._file("proc/cmdline")),
            ("memory", self._file("proc/meminfo")),
            ("mounts", self._file("proc/self/mountinfo")),
            ("boot-entries-after", self._boot_entries),
            ("efibootmgr", self._program("efibootmgr", "-v")),
            ("interfaces", lambda: describe_interfaces(str(self._root))),
            ("links", self._program("ip", "-json", "-statistics", "-details", "link")),
            ("addresses", self._program("ip", "address")),
            ("routes", self._program("ip", "route")),
            # Last, because a dying disk may keep a look for ever.
            ("lsblk", self._program("lsblk", "--json", "--bytes", "--output", _COLUMNS)),
            ("tables-after", self._tables),
            ("smart", lambda: "\n".join(f"# {path}\n{self._smart(path)}" for path in self._disks)),
        ]
        parts = [*gather(looks, _AFTER_S), *self._before]
        return make_bundle(failure, parts, self._secrets, agent_version=agent_version, taken_s=self._clock())

    def with_disk(self, failure: Failure) -> Failure:
        """Return `failure` with device, offset and SMART of the disk, where an I/O error explains it.

        A program, or a check, that failed over a device the kernel has logged errors of failed for them.
        """
        if failure.cause not in (Cause.DISK_IO, Cause.READBACK, *_PERHAPS_DISK):
            return failure
        told: list[str] = []
        for part in gather([("errors", lambda: self._disk_errors(failure, told))], _DISK_S):
            if part.note:
                told.append(f"its SMART data: {part.note}")
        if not told:
            return failure
        message = "; ".join((failure.message, *tuple(told)))
        if failure.cause not in _PERHAPS_DISK:
            return msgspec.structs.replace(failure, message=message)
        hint = remedy(Cause.DISK_IO, failure.stage).do
        return msgspec.structs.replace(failure, cause=Cause.DISK_IO, message=message, hint=hint)

    def _disk_errors(self, failure: Failure, told: list[str]) -> str:
        """Add to `told`, one by one, for the last of these may never come back."""
        named = [path for path in self._disks if path in failure.message]
        # Of several disks the one a program worked on, if it says so.
        errors = find_disk_errors(self._kernel_log(), named or self._disks, self._since_s)
        if failure.cause in _PERHAPS_DISK and not (named and errors):
            return ""
        if errors or failure.cause is Cause.DISK_IO:
            told.append("; ".join(map(str, errors[:_SHOWN_ERRORS])) or "the kernel's log names no sector")
        disks = dict.fromkeys(error.disk for error in errors[:_SHOWN_ERRORS]) or named or self._disks
        for path in list(disks)[:_SHOWN_ERRORS]:
            told.append(f"SMART of {path}: {smart_summary(self._smart(path))}")
        return ""

    def _smart(self, path: str) -> str:
        return self._run(("smartctl", "--json", "--all", path), timeout_s=_TOOL_S, accept=_ANY_STATUS).stdout

    def _tables(self) -> str:
        texts = []
        for path in self._disks:
            try:
                # Status 1: the disk has no table.
                done = self._run(("sfdisk", "--dump", path), timeout_s=_TOOL_S, accept=(0, 1))
                texts.append(f"# {path}\n{done.stdout or done.stderr}")
            except ClonerError as error:
                texts.append(f"# {path}: {error.message}")
        return "\n".join(texts)

    def _boot_entries(self) -> str:
        if not self._efivars.is_there:
            return "this machine shows no firmware variables"
        nvram = read_nvram(self._efivars.all())
        current = "none" if nvram.current is None else f"{nvram.current:04X}"
        unreadable = [f"Boot{number:04X} is no load option" for number in nvram.unreadable]
        return "\n".join((f"BootCurrent {current}", *describe(nvram), *unreadable))

    def _file(self, name: str) -> Look:
        return lambda: (self._root / name).read_text(errors="replace")

    def _program(self, *argv: str) -> Look:
        return lambda: self._run(argv, timeout_s=_TOOL_S).stdout


def gather(looks: Sequence[tuple[str, Look]], limit_s: float) -> list[Part]:
    """Return one part a look, in order; a look that fails, or is not over in time, leaves a note in its place."""
    done: list[Part] = []

    def work() -> None:
        for name, look in looks:
            try:
                done.append(Part(name=name, text=look()))
            except Exception as error:  # noqa: BLE001 — one look must not cost the others
                done.append(Part(name=name, text="", note=f"{type(error).__name__}: {error}"[:900]))

    # A thread of its own: a program that waits for a dead disk cannot be killed (state D), and the node must go on.
    worker = threading.Thread(target=work, name="cloner-bundle", daemon=True)
    worker.start()
    worker.join(limit_s)
    kept = list(done)
    return kept + [Part(name=name, text="", note=f"not over after {limit_s:g} s") for name, _ in looks[len(kept) :]]


def kernel_log_tail(path: str = "/dev/kmsg") -> str:
    """Return the last 192 KiB of the kernel's log; source: Documentation/ABI/testing/dev-kmsg."""
    lines: deque[bytes] = deque()
    size = 0
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while True:
            try:
                record = os.read(fd, _KMSG_RECORD_BYTES)
            except BlockingIOError:
                break
            except BrokenPipeError:
                continue  # records were overwritten meanwhile; the next read gives the oldest there is
            if not record:
                break
            lines.append(record)
            size += len(record)
            while size > _TAIL_BYTES:
                size -= len(lines.popleft())
    finally:
        os.close(fd)
    return "\n".join(map(_kernel_line, lines))


def _kernel_line(record: bytes) -> str:
    """Return "[   12.345678] text" of "6,1234,12345678,-;text" and its continuation lines."""
    head, _, text = record.decode(errors="replace").partition(";")
    words = head.split(",")
    seconds = int(words[2]) / 1e6 if len(words) > 2 and words[2].isdigit() else 0.0
    return f"[{seconds:12.6f}] {text.splitlines()[0] if text else ''}"
