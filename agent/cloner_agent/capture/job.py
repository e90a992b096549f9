"""A whole capture: walk, pack, publish."""

from __future__ import annotations

import os
import re
import resource
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cloner_agent.capture import golden_identity
from cloner_agent.capture.binding import Binding, bind_index
from cloner_agent.capture.index import open_index
from cloner_agent.capture.mounts import filesystems_of, find_boundaries, parse_mountinfo
from cloner_agent.capture.packing import PackStream
from cloner_agent.capture.records import CaptureError, Notes, RecordMaker
from cloner_agent.capture.rules import DEFAULTS, RuleBook, parse_excludes
from cloner_agent.capture.sink import CaptureSink
from cloner_agent.capture.walk import Walker
from cloner_agent.rooted import Rooted
from cloner_core.image.checker import TreeChecker
from cloner_core.image.inode import encode_inode
from cloner_core.image.limits import FORMAT, MAX_PATH_BYTES
from cloner_core.image.linting.linter import PRELUDE, Linter
from cloner_core.image.tree import Facts, Filesystem, Segment, SegmentRef, SegmentWriter, TreeRoot, encode_root
from cloner_core.image.version import Draft, VersionRecord, check_image_name
from cloner_core.layout import Layout

_PROGRESS_S = 0.25
_OS_RELEASE = re.compile(r"""^(ID|VERSION_ID)=["']?([^"'\n]*)["']?$""", re.MULTILINE)
_PROGRAMS = ("bin/sh", "bin/busybox", "usr/lib/systemd/systemd")
_ELF_MACHINES = {62: "x86_64", 183: "aarch64"}  # e_machine, elf(5)
# One descriptor for each directory on the way down; a path of 4095 bytes can have two thousand.
_DESCRIPTORS = MAX_PATH_BYTES // 2 + 256


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
    threads: int | None = None  # that compress; the number of CPUs when None
    layout: Layout | None = None  # of the nodes it is for; the lint compares it
    allow_secrets: bool = False  # publish what the lint calls a secret
    indexes: Path | None = None  # the directory of this machine's capture indexes; None: neither used nor kept
    is_rehash: bool = False  # read every file, whatever the index has; the index is kept all the same
    is_dry: bool = False  # the sink keeps nothing, so no index is kept


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
    excludes = parse_excludes(options.excludes)
    book = RuleBook((*excludes, *golden_identity.RULES, *DEFAULTS))
    _raise_descriptor_limit()
    real = os.path.realpath(os.fsencode(root))
    try:
        mounts = parse_mountinfo(Path("/proc/self/mountinfo").read_bytes())
        root_fd = _open_quietly(real)
    except OSError as error:
        raise CaptureError(f"cannot capture {os.fsdecode(real)}: {error.strerror}") from error
    try:
        rooted = Rooted(root_fd)
    finally:
        os.close(root_fd)
    base = sink.base(options.image)
    boundaries = find_boundaries(real, mounts)
    notes = Notes()

    def bind() -> Binding:
        return bind_index(options.image, rooted, boundaries.crossed)

    memory = open_index(
        options.indexes, bind, started_ns=clock_ns(), is_rehash=options.is_rehash, say=notes.index.append
    )
    with rooted, memory as index:
        with PackStream(sink, base, threads=options.threads) as packs:
            esp = _find_esp(rooted, options.esp, boundaries.crossed)
            filesystems = filesystems_of(boundaries, esp, _read(rooted, "etc/fstab"))
            prelude = {path: _read(rooted, path) for path in PRELUDE}
            linter = Linter(prelude, layout=options.layout, allow_secrets=options.allow_secrets)
            walker = Walker(boundaries, book, RecordMaker(boundaries, esp, packs, index, notes), notes, linter)
            tree = _write_tree(walker, rooted.fd, filesystems, packs, progress)
            offers = packs.finish()
            facts = _facts(rooted, options)
        tree_root = TreeRoot(FORMAT, facts, tree.filesystems, tree.inodes, tree.data_bytes, tuple(tree.segments))
        record = sink.publish(
            Draft(
                image=options.image,
                root=encode_root(tree_root),
                packs=offers,
                base=base.version if base else b"",
                message=options.message,
                author=options.author,
                source=options.source,
                inexact=tuple(path.decode(errors="backslashreplace") for path in notes.inexact),
                findings=linter.findings(),
            )
        )
        if not options.is_dry:
            index.keep()
    unmatched = tuple(text for text, rule in zip(options.excludes, excludes, strict=True) if rule not in book.used)
    return Captured(record, tree.inodes, tree.data_bytes, len(offers), packs.stored_bytes, notes, unmatched)


@dataclass(slots=True)
class _Tree:
    segments: list[SegmentRef]
    filesystems: tuple[Filesystem, ...]
    inodes: int = 0
    data_bytes: int = 0


def _write_tree(
    walker: Walker,
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


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _DESCRIPTORS:
        wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def _find_esp(rooted: Rooted, path: str | None, crossed: dict[bytes, str]) -> bytes | None:
    """Return the directory to be taken for the ESP, or None; a FAT mounted there is known as one anyway."""
    if path is None:
        return None
    relative = os.fsencode(path).strip(b"/")
    if not relative or crossed.get(relative, "vfat") != "vfat":
        return None
    try:
        status = rooted.lstat(relative)
    except OSError:
        return None
    return relative if stat.S_ISDIR(status.st_mode) else None


def _open_quietly(directory: bytes) -> int:
    """Open a directory without touching its access time, where this process may: O_NOATIME is for the owner."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return os.open(directory, flags | os.O_NOATIME)
    except PermissionError:
        return os.open(directory, flags)


def _read(rooted: Rooted, path: str, limit_bytes: int = 1 << 20) -> bytes:
    """Return the start of a file of the tree, b"" where there is none: an image need not have it."""
    for flags in (os.O_NOATIME, 0):
        try:
            fd = rooted.open(path, os.O_RDONLY | os.O_NONBLOCK | flags)
        except PermissionError:
            continue
        except OSError:
            return b""
        try:
            return os.pread(fd, limit_bytes, 0) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
        finally:
            os.close(fd)
    return b""


def _architecture(rooted: Rooted) -> str:
    """Return what the tree's shell was built for: the tree need not be of this machine."""
    for program in _PROGRAMS:
        header = _read(rooted, program, 20)
        if header[:4] == b"\x7fELF":
            return _ELF_MACHINES.get(int.from_bytes(header[18:20], "little"), "")
    return ""


def _facts(rooted: Rooted, options: CaptureOptions) -> Facts:
    text = (_read(rooted, "etc/os-release") or _read(rooted, "usr/lib/os-release")).decode(errors="replace")
    told = dict(_OS_RELEASE.findall(text))
    architecture = options.architecture or _architecture(rooted)
    return Facts(architecture, told.get("ID", ""), told.get("VERSION_ID", ""), tuple(sorted(options.excludes)))
