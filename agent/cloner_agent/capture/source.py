"""A tree that is captured, opened: where its filesystems end, what is left out of it, what the lint asks."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cloner_agent.capture import golden_identity
from cloner_agent.capture.mounts import Boundaries, filesystems_of, find_boundaries, parse_mountinfo
from cloner_agent.capture.records import CaptureError
from cloner_agent.capture.rules import DEFAULTS, Rule, RuleBook, parse_excludes
from cloner_agent.rooted import Rooted
from cloner_core.image.limits import MAX_FILESYSTEMS, MAX_PATH_BYTES
from cloner_core.image.linting.linter import PRELUDE, Linter
from cloner_core.image.tree import Filesystem
from cloner_core.layout import Layout

# One descriptor for each directory on the way down; a path of 4095 bytes can have two thousand.
_DESCRIPTORS = MAX_PATH_BYTES // 2 + 256
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Source:
    """What a walk over the tree needs; see `opened`."""

    rooted: Rooted
    boundaries: Boundaries
    esp: bytes | None  # directory taken for the ESP
    filesystems: tuple[Filesystem, ...]
    book: RuleBook
    linter: Linter
    excludes: tuple[tuple[str, Rule], ...]

    def mount_points(self) -> tuple[str, ...]:
        """Return where the filesystems are mounted that are captured, from the root of the tree."""
        crossed = sorted(self.boundaries.crossed)
        return tuple("/" + path.decode(errors="backslashreplace") for path in (b"", *crossed))

    def unmatched_excludes(self) -> tuple[str, ...]:
        """Return the excludes that have named nothing so far."""
        return tuple(text for text, rule in self.excludes if rule not in self.book.used)


@contextmanager
def opened(
    root: str | Path,
    esp: str | None,
    excludes: Sequence[str],
    layout: Layout | None,
    *,
    allow_secrets: bool,
    closed: frozenset[bytes] = frozenset(),
) -> Iterator[Source]:
    """Give the tree beneath `root`; `esp` is taken for the ESP where it is a directory.

    `closed` are directories whose content is not taken, nor that of what is mounted beneath them: those a snapshot has
    in place of mounts, and mounts of devices that are no part of the layout. What is mounted and captured stays busy.

    Raises InvalidError for wrong excludes, CaptureError when the tree cannot be opened or has too many filesystems.
    """
    rules = parse_excludes(excludes)
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
    with rooted, ExitStack() as held:
        boundaries = find_boundaries(real, mounts, closed=closed)
        for path in boundaries.crossed:  # or one that is mounted on demand would be gone before the walk is there
            held.callback(os.close, _hold(rooted, path))
        esp_path = _find_esp(rooted, esp, boundaries.crossed)
        filesystems = filesystems_of(boundaries, esp_path, read_start(rooted, "etc/fstab"))
        _require_few(filesystems)
        prelude = {path: read_start(rooted, path) for path in PRELUDE}
        yield Source(
            rooted=rooted,
            boundaries=boundaries,
            esp=esp_path,
            filesystems=filesystems,
            book=RuleBook((*rules, *golden_identity.RULES, *DEFAULTS)),
            linter=Linter(prelude, layout=layout, allow_secrets=allow_secrets),
            excludes=tuple(zip(excludes, rules, strict=True)),
        )


def closed_paths(mounts: Iterable[str]) -> frozenset[bytes]:
    """Return mount points, absolute in the tree, as `opened` takes them."""
    return frozenset(os.fsencode(mount).strip(b"/") for mount in mounts)


def _hold(rooted: Rooted, path: bytes) -> int:
    try:
        return rooted.open(path, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise CaptureError(f"cannot read /{os.fsdecode(path)}: {error.strerror}") from error


def _require_few(filesystems: Sequence[Filesystem]) -> None:
    if len(filesystems) > MAX_FILESYSTEMS:
        listed = ", ".join(f"/{os.fsdecode(one.mount)}" for one in filesystems[:_SHOWN])
        raise CaptureError(
            f"{len(filesystems)} filesystems make up the tree, an image holds at most {MAX_FILESYSTEMS}: {listed}, …",
            hint="unmount what the image need not have while it is captured",
        )


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


def read_start(rooted: Rooted, path: str, limit_bytes: int = 1 << 20) -> bytes:
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
