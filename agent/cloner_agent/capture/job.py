"""A whole capture: walk, pack, publish."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cloner_agent.capture.binding import bind_index
from cloner_agent.capture.index import open_index
from cloner_agent.capture.packing import PackStream
from cloner_agent.capture.records import CaptureError, Notes, RecordMaker
from cloner_agent.capture.sink import CaptureSink
from cloner_agent.capture.source import Source, opened, read_start
from cloner_agent.capture.walk import Walker
from cloner_agent.rooted import Rooted
from cloner_core.allocation import keep_freed_memory
from cloner_core.errors import ConflictError
from cloner_core.image.checker import TreeChecker
from cloner_core.image.inode import Inode, encode_inode
from cloner_core.image.limits import FORMAT
from cloner_core.image.options import StoredOptions
from cloner_core.image.tree import Facts, Filesystem, Segment, SegmentRef, SegmentWriter, TreeRoot, encode_root
from cloner_core.image.version import Draft, VersionRecord, check_image_name
from cloner_core.layout import Layout

_PROGRESS_S = 0.25
_OS_RELEASE = re.compile(r"""^(ID|VERSION_ID)=["']?([^"'\n]*)["']?$""", re.MULTILINE)
_PROGRAMS = ("bin/sh", "bin/busybox", "usr/lib/systemd/systemd")
_ELF_MACHINES = {62: "x86_64", 183: "aarch64"}  # e_machine, elf(5)


@dataclass(frozen=True, slots=True)
class CaptureOptions:
    """What a person says of a capture."""

    image: str
    excludes: tuple[str, ...] = ()  # paths or patterns from the root of the tree
    esp: str | None = "/boot/efi"  # taken for the ESP where it is a directory; None for a tree without one
    message: str = ""
    author: str = ""
    source: str = ""  # host name of the machine captured
    architecture: str = ""  # as uname shows it; read from the tree's own programs when ""
    closed: frozenset[bytes] = frozenset()  # directories whose content is not taken; see source.opened
    mounts: tuple[str, ...] | None = None  # that were shown to be captured: no others then
    threads: int | None = None  # that compress; the number of CPUs when None
    layout: Layout | None = None  # of the nodes it is for; the lint compares it
    allow_secrets: bool = False  # publish what the lint calls a secret
    indexes: Path | None = None  # the directory of this machine's capture indexes; None: neither used nor kept
    is_rehash: bool = False  # read every file, whatever the index has; the index is kept all the same
    is_dry: bool = False  # the sink keeps nothing, so no index is kept
    kept: StoredOptions | None = None  # to be kept with the image; None: those that are kept stay
    kept_revision: int = 0  # those that are kept must still have it, where `kept` says others


@dataclass(frozen=True, slots=True)
class CaptureProgress:
    """How far a capture is. The whole is not known before its end."""

    inodes: int
    data_bytes: int
    stored_bytes: int  # of the packs made so far


@dataclass(frozen=True, slots=True)
class Captured:
    """What a capture made."""

    record: VersionRecord
    inodes: int
    data_bytes: int
    new_packs: int
    new_stored_bytes: int
    notes: Notes
    unmatched_excludes: tuple[str, ...]  # excludes that named nothing


def _ignore(_: CaptureProgress) -> None:
    pass


def capture(
    root: str | Path,
    sink: CaptureSink,
    options: CaptureOptions,
    progress: Callable[[CaptureProgress], None] = _ignore,
    *,
    clock_ns: Callable[[], int] = time.time_ns,
) -> Captured:
    """Make the next version of an image of the tree beneath `root` and return what was published.

    `progress` is called a few times a second; `clock_ns` is the clock that files get their times from. Raises
    CaptureError when something cannot be read, SecretsError for secrets that are not allowed, InvalidError for wrong
    options, IntegrityError from the sink; then no version is made.
    """
    check_image_name(options.image)
    keep_freed_memory()
    base = sink.base(options.image)
    notes = Notes()
    with (
        opened(
            root,
            options.esp,
            options.excludes,
            options.layout,
            allow_secrets=options.allow_secrets,
            closed=options.closed,
        ) as source,
        open_index(
            options.indexes,
            partial(bind_index, options.image, source.rooted, source.boundaries.crossed),
            started_ns=clock_ns(),
            is_rehash=options.is_rehash,
            say=notes.index.append,
        ) as index,
    ):
        _require_shown(source, options.mounts)
        with PackStream(sink, base, index.tree, threads=options.threads) as packs:
            maker = RecordMaker(source.boundaries, source.esp, packs, index, notes)
            walker = Walker(source.boundaries, source.book, maker, notes, source.linter)
            tree = _write_tree(walker, source.rooted.fd, source.filesystems, packs, progress)
            offers = packs.finish()
            facts = _facts(source.rooted, options)
        tree_root = TreeRoot(FORMAT, facts, tree.filesystems, tree.inodes, tree.data_bytes, tuple(tree.segments))
        draft = Draft(
            image=options.image,
            root=encode_root(tree_root),
            packs=offers,
            base=base.version if base else b"",
            also=base.also if base else (),
            after=base.number if base else 0,
            message=options.message,
            author=options.author,
            source=options.source,
            inexact=tuple(path.decode(errors="backslashreplace") for path in notes.inexact),
            findings=source.linter.findings(),
            options=options.kept,
            options_revision=options.kept_revision,
        )
        try:
            record = sink.publish(draft)
        except ConflictError:
            index.keep()  # what it names is kept on the server for the next try
            raise
        if not options.is_dry:
            index.keep()
    return Captured(
        record, tree.inodes, tree.data_bytes, len(offers), packs.stored_bytes, notes, source.unmatched_excludes()
    )


@dataclass(slots=True)
class _Tree:
    segments: list[SegmentRef]
    filesystems: tuple[Filesystem, ...]
    inodes: int = 0
    data_bytes: int = 0


def _write_tree(
    walker: Walker[Inode],
    root_fd: int,
    filesystems: tuple[Filesystem, ...],
    packs: PackStream,
    progress: Callable[[CaptureProgress], None],
) -> _Tree:
    checker = TreeChecker(filesystems)
    writer = SegmentWriter()
    tree = _Tree([], filesystems)

    def keep(segment: Segment | None) -> None:
        if segment is not None:
            tree.segments.append(segment.ref)
            packs.add_segment(segment)

    due = time.monotonic() + _PROGRESS_S
    for inode, data_bytes in walker.walk(root_fd):
        checker.add(inode)
        keep(writer.add(encode_inode(inode), data_bytes))
        tree.data_bytes += data_bytes
        if not inode.number % 64 and time.monotonic() >= due:
            due = time.monotonic() + _PROGRESS_S
            progress(CaptureProgress(inode.number, tree.data_bytes, packs.stored_bytes))
    keep(writer.close())
    tree.inodes = checker.count
    tree.filesystems = checker.counted()
    progress(CaptureProgress(tree.inodes, tree.data_bytes, packs.stored_bytes))
    return tree


def _architecture(rooted: Rooted) -> str:
    """Return what the tree's shell was built for: the tree need not be of this machine."""
    for program in _PROGRAMS:
        header = read_start(rooted, program, 20)
        if header[:4] == b"\x7fELF":
            return _ELF_MACHINES.get(int.from_bytes(header[18:20], "little"), "")
    return ""


def _require_shown(source: Source, shown: tuple[str, ...] | None) -> None:
    """Raise CaptureError when other filesystems are mounted than those that a person said yes to."""
    if shown is None:
        return
    found = source.mount_points()
    if others := sorted({*found} ^ {*shown}):
        told = ", ".join(f"{path} is {'mounted now' if path in found else 'no longer mounted'}" for path in others)
        raise CaptureError(f"not what was shown before: {told}", hint="capture again")


def _facts(rooted: Rooted, options: CaptureOptions) -> Facts:
    text = read_start(rooted, "etc/os-release") or read_start(rooted, "usr/lib/os-release")
    told = dict(_OS_RELEASE.findall(text.decode(errors="replace")))
    architecture = options.architecture or _architecture(rooted)
    return Facts(architecture, told.get("ID", ""), told.get("VERSION_ID", ""), tuple(sorted(options.excludes)))
