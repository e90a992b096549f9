"""The running system as it was at one moment: snapshots of its filesystems, seen together in a mount namespace.

btrfs subvolumes (those nested in them as well) and LVM volumes are snapshot, one after the other; what is on neither is
seen as it runs, and told. Mounts are in a namespace of this process and end with it, however it ends; a snapshot that a
killed capture left is removed by the next one.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from cloner_agent.capture.mounts import (
    Boundaries,
    Mount,
    find_boundaries,
    is_kept_snapshot,
    is_subvolume,
    parse_mountinfo,
)
from cloner_agent.host import Runner, ToolError
from cloner_core.errors import RefusedError
from cloner_core.sizes import GIB, MIB, format_bytes

VIEW = Path("/run/cloner-snapshot")
_NAME = "cloner-snapshot-{pid}-{number}"  # of a volume; a subvolume's has a dot before it
_OURS = re.compile(r"\.?cloner-snapshot-([0-9]+)-[0-9]+")
_LEAST_BYTES = 256 * MIB  # that a snapshot of a volume can take up before it is lost
_SHARE = 5  # of a volume: a fifth may change while it is captured
_CLONE_NEWNS = 0x20000  # include/uapi/linux/sched.h
_TOOL_S = 300.0

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class View:
    """The system as it was."""

    root: Path
    closed: frozenset[bytes]  # mount points of the running system whose content is not captured
    live: tuple[str, ...]  # mount points that are seen as they run, and why
    troubles: list[str]  # snapshots that could not be removed at the end


@contextmanager
def snapshotted(run: Runner, closed: frozenset[bytes] = frozenset()) -> Iterator[View]:
    """Give a view of the running system, which is captured in its place; this process sees mounts of its own from then.

    `closed` are mount points whose content is not captured, whatever is mounted there. Read-only snapshots that lie
    in a subvolume are empty directories in the view.

    Raises RefusedError when the filesystem under / cannot be snapshot, ToolError when a tool fails.
    """
    mounts = parse_mountinfo(Path("/proc/self/mountinfo").read_bytes())
    boundaries = find_boundaries(b"/", mounts, closed=closed)
    shown = {mount.path: mount for mount in mounts}  # the last one on a path is the one that is seen
    points = [shown[b"/"], *(shown[b"/" + path] for path in sorted(boundaries.crossed))]
    with ExitStack() as made:
        made.enter_context(_ended_in_order())
        maker = _Maker(run, boundaries, made)
        maker.remove_leftovers(points)
        sources = [maker.snapshot(mount) for mount in points]
        if isinstance(sources[0], _Live):
            raise RefusedError(f"--snapshot: / {sources[0].why}", hint="capture it as it runs, without --snapshot")
        _enter_namespace(run)
        made.callback(_leave, run)
        VIEW.mkdir(exist_ok=True)
        for mount, source in zip(points, sources, strict=True):
            _show(run, mount, source)
        seen = zip(points, sources, strict=True)
        live = tuple(f"{os.fsdecode(mount.path)} {one.why}" for mount, one in seen if isinstance(one, _Live))
        yield View(VIEW, boundaries.closed, live, maker.troubles)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Have a lost terminal and SIGTERM end us as Ctrl-C does: a snapshot that stays slows the machine down."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    former = {number: signal.signal(number, interrupt) for number in (signal.SIGHUP, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@dataclass(frozen=True, slots=True)
class _Subvolume:
    path: str


@dataclass(frozen=True, slots=True)
class _Volume:
    device: str


@dataclass(frozen=True, slots=True)
class _Live:
    why: str


_Source = _Subvolume | _Volume | _Live


class _Maker:
    """Makes snapshots, and has them removed when `made` ends."""

    def __init__(self, run: Runner, boundaries: Boundaries, made: ExitStack) -> None:
        self._run = run
        self._covered = {b"/" + path for path in (*boundaries.crossed, *boundaries.closed)}
        self._made = made
        self._number = 0
        self.troubles: list[str] = []

    def snapshot(self, mount: Mount) -> _Source:
        """Return a snapshot of what is mounted there, or why there is none."""
        if mount.type == "btrfs" and is_subvolume(mount.path):
            return self._subvolume(os.fsdecode(mount.path))
        return self._volume(os.fsdecode(mount.source))

    def remove_leftovers(self, points: Sequence[Mount]) -> None:
        """Remove snapshots of captures that are no more."""
        for mount in points:
            if mount.type == "btrfs":
                for name in os.listdir(mount.path):
                    if _is_left_over(os.fsdecode(name)):
                        self._delete_subvolume(os.path.join(os.fsdecode(mount.path), os.fsdecode(name)))
        for volume in self._volumes():
            if _is_left_over(volume["lv_name"]):
                self._remove_volume(f"{volume['vg_name']}/{volume['lv_name']}")

    def _next(self) -> str:
        self._number += 1
        return _NAME.format(pid=os.getpid(), number=self._number)

    def _subvolume(self, path: str) -> _Subvolume:
        target = os.path.join(path, f".{self._next()}")
        nested = list(_nested(path, self._covered))
        self._call("btrfs", "subvolume", "snapshot", path, target)
        self._made.callback(self._remove, self._delete_subvolume, target)
        for inner in nested:  # in the snapshot there is an empty directory in its place
            place = os.path.join(target, os.path.relpath(inner, path))
            parent = os.path.dirname(place)
            status = os.stat(parent)
            os.rmdir(place)
            self._call("btrfs", "subvolume", "snapshot", inner, place)
            os.utime(parent, ns=(status.st_atime_ns, status.st_mtime_ns))
        return _Subvolume(target)

    def _delete_subvolume(self, path: str) -> None:
        for inner in reversed([*_nested(path, frozenset())]):
            self._call("btrfs", "subvolume", "delete", inner)
        self._call("btrfs", "subvolume", "delete", path)

    def _volume(self, device: str) -> _Source:
        found = [one for one in self._volumes(device) if os.path.realpath(one["lv_path"]) == os.path.realpath(device)]
        if not found:
            return _Live(f"is on {device}, neither a subvolume of btrfs nor a volume of LVM")
        (volume,) = found
        name, origin = self._next(), f"{volume['vg_name']}/{volume['lv_name']}"
        size, free = int(volume["lv_size"]), int(volume["vg_free"])
        if "thin" in volume["lv_layout"].split(","):
            room = ("--setactivationskip", "n")
        else:
            wanted = min(free, size, max(GIB, size // _SHARE))
            if wanted < min(size, _LEAST_BYTES):
                return _Live(f"is on {origin}, whose group has {format_bytes(free)} left for a snapshot")
            room = ("--size", f"{wanted}b")
        self._call("lvcreate", "--yes", "--snapshot", *room, "--name", name, origin)
        self._made.callback(self._remove, self._remove_volume, f"{volume['vg_name']}/{name}")
        return _Volume(f"/dev/{volume['vg_name']}/{name}")

    def _remove(self, remove: Callable[[str], None], name: str) -> None:
        """Remove a snapshot that has served: what it was for is done, whether this succeeds or not."""
        try:
            remove(name)
        except ToolError as fault:
            self.troubles.append(f"the snapshot {name} is left: {fault.message}")

    def _remove_volume(self, name: str) -> None:
        self._call("lvremove", "--yes", name)

    def _volumes(self, *named: str) -> list[dict[str, str]]:
        fields = "vg_name,lv_name,lv_path,lv_size,vg_free,lv_layout"
        argv = ("lvs", "--reportformat", "json", "--units", "b", "--nosuffix", "--options", fields, *named)
        try:
            said = self._run(argv, timeout_s=_TOOL_S).stdout
        except ToolError:
            return []  # no LVM here, or not a volume
        report: list[dict[str, str]] = json.loads(said)["report"][0]["lv"]
        return report

    def _call(self, *argv: str) -> None:
        self._run(argv, timeout_s=_TOOL_S)


def _nested(path: str, covered: frozenset[bytes] | set[bytes]) -> Iterator[str]:
    """Give the subvolumes within the subvolume at `path`, each after the one it lies in; none at `covered` paths.

    Told by their inode number, as every walk sees them: `btrfs subvolume list` names paths of another root.
    """
    device = os.lstat(path).st_dev
    for folder, names, _ in os.walk(path):
        kept = []
        for name in names:
            full = os.path.join(folder, name)
            if os.fsencode(full) in covered or _OURS.fullmatch(name):
                continue
            with suppress(FileNotFoundError):
                status = os.lstat(full)
                if status.st_dev != device and is_subvolume(os.fsencode(full)) and not os.path.islink(full):
                    if _is_kept(full):
                        continue
                    yield full
                    yield from _nested(full, covered)
                elif status.st_dev == device:
                    kept.append(name)
        names[:] = kept


def _is_kept(path: str) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return bool(is_kept_snapshot(fd))
    finally:
        os.close(fd)


def _is_left_over(name: str) -> bool:
    match = _OURS.fullmatch(name)
    return match is not None and not Path("/proc", match[1]).exists()


def _enter_namespace(run: Runner) -> None:
    if _libc.unshare(_CLONE_NEWNS) != 0:
        number = ctypes.get_errno()
        raise RefusedError(f"--snapshot: no mount namespace can be had: {os.strerror(number)}", hint="run it as root")
    run(("mount", "--make-rprivate", "/"))


def _show(run: Runner, mount: Mount, source: _Source) -> None:
    target = str(VIEW) + os.fsdecode(mount.path).rstrip("/")
    match source:
        case _Subvolume(path=path):
            run(("mount", "--bind", path, target))
        case _Volume(device=device):
            # Its filesystem has the UUID of the one that is mounted, which xfs would refuse.
            options = "ro,nouuid" if mount.type == "xfs" else "ro"
            run(("mount", "-t", mount.type, "-o", options, device, target))
        case _Live():
            run(("mount", "--bind", os.fsdecode(mount.path), target))


def _leave(run: Runner) -> None:
    run(("umount", "--recursive", str(VIEW)), accept=(0, 1, 32))
