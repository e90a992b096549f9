"""Where one filesystem ends and another begins beneath a captured tree."""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cloner_core.image.tree import ROLE_ESP, ROLE_ROOT, Filesystem

# Filesystems whose content is the machine's own. Everything else mounted (network, memory, overlays, images) is
# somebody else's or volatile, and its mount point is captured as an empty directory.
LOCAL_TYPES = frozenset({"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "vfat", "xfs"})

_SYS_OPEN_TREE = 428
_OPEN_TREE_CLONE = 1  # include/uapi/linux/mount.h
_AT_EMPTY_PATH = 0x1000
_SUBVOLUME_INODE = 256  # BTRFS_FIRST_FREE_OBJECTID
_GET_SUBVOLUME_INFO = 0x81F8943C  # BTRFS_IOC_GET_SUBVOL_INFO, include/uapi/linux/btrfs.h
_SUBVOLUME_INFO_BYTES = 504
_INFO_FLAGS = slice(288, 296)  # of struct btrfs_ioctl_get_subvol_info_args
_INFO_PARENT = slice(312, 328)  # UUID of what it is a snapshot of
_IS_READ_ONLY = 1  # BTRFS_ROOT_SUBVOL_RDONLY
_LOOP = b"/dev/loop"
_OCTAL = re.compile(rb"\\([0-7]{3})")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of /proc/self/mountinfo; see proc_pid_mountinfo(5)."""

    path: bytes
    device: bytes  # major:minor
    root: bytes  # of the mount within its filesystem
    type: str
    source: bytes = b""  # the device, as it was said to mount(2)


@dataclass(frozen=True, slots=True)
class Boundaries:
    """What lies beneath the root of a capture, by path relative to it."""

    crossed: dict[bytes, str]  # mount point → filesystem type: captured
    closed: frozenset[bytes]  # mount points whose content is not


def parse_mountinfo(data: bytes) -> list[Mount]:
    """Return the mounts of a mountinfo file, in its order."""
    mounts: list[Mount] = []
    for line in data.splitlines():
        left, _, right = line.partition(b" - ")
        fields = left.split(b" ")
        if len(fields) < 5 or not right:
            continue
        root, path = (_OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field) for field in fields[3:5])
        kind, source, *_ = *right.split(b" "), b""
        source = _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), source)
        mounts.append(Mount(path, fields[2], root, kind.decode(errors="replace"), source))
    return mounts


def is_subvolume(path: bytes) -> bool:
    """Whether the directory at `path` is the top of a subvolume of btrfs, and not one within it."""
    try:
        return os.stat(path).st_ino == _SUBVOLUME_INODE
    except OSError:
        return False


def is_kept_snapshot(fd: int) -> bool | None:
    """Whether the directory `fd` is a read-only snapshot of btrfs: a copy that is kept, which nothing runs from.

    None when it is not the top of a subvolume.
    """
    if os.fstat(fd).st_ino != _SUBVOLUME_INODE:
        return None
    try:
        told = fcntl.ioctl(fd, _GET_SUBVOLUME_INFO, bytes(_SUBVOLUME_INFO_BYTES))
    except OSError:
        return None  # another filesystem
    return bool(told[_INFO_FLAGS][0] & _IS_READ_ONLY) and any(told[_INFO_PARENT])


def find_boundaries(
    root: bytes,
    mounts: Iterable[Mount],
    is_subvolume: Callable[[bytes], bool] = is_subvolume,
    *,
    closed: Iterable[bytes] = (),
) -> Boundaries:
    """Sort the mounts beneath `root`, an absolute real path, into those to cross and those to close.

    Of what is shown at several places the first counts. Subvolumes of one btrfs share a device and are told apart by
    where they lie in it; `is_subvolume` tells them from a bind mount of a directory. A file that the running system
    has mounted (root "/") is no part of it. `closed` are closed whatever is
    mounted there, and so is what is mounted beneath them.
    """
    crossed: dict[bytes, str] = {}
    barriers = set(closed)
    shut: set[bytes] = set()
    shown: list[Mount] = []
    prefix = root.rstrip(b"/") + b"/"
    for mount in mounts:
        if not (mount.path + b"/").startswith(prefix):
            if prefix.startswith(mount.path.rstrip(b"/") + b"/"):
                shown = [mount]  # the last such mount is the one the root lies on
            continue
        path = mount.path[len(prefix) :]
        if not path:
            shown = [mount]
            continue
        is_subvolume_there = mount.type == "btrfs" and is_subvolume(mount.path)
        seen = next((one for one in shown if _place(one, mount) == mount.path), None)
        if seen is not None and (not is_subvolume_there or seen.path == mount.path):
            if seen.path != mount.path:  # a directory mounted on itself: it is as if it were not
                crossed.pop(path, None)
                shut.discard(path)
            continue
        # A bind mount shows a part of a filesystem a second time; a btrfs subvolume is a part shown once.
        is_whole = mount.root == b"/" or is_subvolume_there
        is_own = mount.type in LOCAL_TYPES and not (root == b"/" and _is_image(mount, shown[0]))
        if is_own and is_whole and not any(_shows(one, mount, is_first=one is shown[0]) for one in shown):
            twice = [_inner(mount, one) for one in shown] + [_inner(one, mount) for one in shown[1:]]
            barriers |= {inner[len(prefix) :] for inner in twice if inner}
            shown.append(mount)
            crossed[path] = mount.type
            shut.discard(path)
        else:
            crossed.pop(path, None)
            shut.add(path)
    shut |= barriers
    hidden = {path for path in crossed if any((path + b"/").startswith(barrier + b"/") for barrier in shut)}
    return Boundaries({path: kind for path, kind in crossed.items() if path not in hidden}, frozenset(shut))


def _is_image(mount: Mount, first: Mount) -> bool:
    """Whether it is a file that is mounted, where the system itself, mounted by `first`, is none."""
    return mount.source.startswith(_LOOP) and not first.source.startswith(_LOOP)


def _place(one: Mount, other: Mount) -> bytes | None:
    """Return where `one` shows the root of `other`, None where it does not."""
    top = one.root.rstrip(b"/")
    if one.device != other.device or not (other.root.rstrip(b"/") + b"/").startswith(top + b"/"):
        return None
    return (one.path.rstrip(b"/") + other.root[len(top) :]).rstrip(b"/") or b"/"


def _shows(one: Mount, other: Mount, *, is_first: bool) -> bool:
    """Whether what `other` shows is seen by `one` already, at another place.

    A subvolume within another one is seen through it, and counts there where that is the root of the tree, the first;
    else where it is mounted itself.
    """
    if one.device != other.device or one.type != "btrfs":
        return one.device == other.device
    return bool(_inner(one, other)) and (is_first or one.root == other.root)


def _inner(one: Mount, other: Mount) -> bytes:
    """Return where `one` shows what `other` shows as well; b"" where it does not, or only at the same place."""
    place = _place(one, other)
    return place if place is not None and place != other.path else b""


def filesystems_of(boundaries: Boundaries, esp: bytes | None, fstab: bytes) -> tuple[Filesystem, ...]:
    """Return the filesystems of the tree, sorted by mount: its root, the mounts crossed, and the ESP.

    `esp` is a directory to be taken for the ESP though nothing is mounted there. What `fstab` says of a mount
    point gives type, UUID and label.
    """
    told = parse_fstab(fstab)
    roles = {b"": ROLE_ROOT} | dict.fromkeys(boundaries.crossed, "data")
    roles |= {path: ROLE_ESP for path, kind in boundaries.crossed.items() if kind == "vfat"}
    if esp is not None:
        roles[esp] = ROLE_ESP
    result: list[Filesystem] = []
    for path, role in sorted(roles.items()):
        kind, uuid, label = told.get(path, ("", "", ""))
        result.append(Filesystem(path, role, boundaries.crossed.get(path, kind), uuid, label))
    return tuple(result)


def parse_fstab(data: bytes) -> dict[bytes, tuple[str, str, str]]:
    """Return mount point (relative) → (type, UUID, label) as far as an fstab(5) tells; the rest is ""."""
    told: dict[bytes, tuple[str, str, str]] = {}
    for line in data.splitlines():
        fields = line.split()
        if len(fields) < 3 or fields[0].startswith(b"#") or not fields[1].startswith(b"/"):
            continue
        spec, path, kind = fields[:3]
        tag, _, value = spec.decode(errors="replace").replace('"', "").partition("=")
        path = _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), path).strip(b"/")
        told[path] = (
            kind.decode(errors="replace"),
            value if tag == "UUID" else "",
            value if tag == "LABEL" else "",
        )
    return told


def open_beneath_mount(parent_fd: int, name: bytes) -> int | None:
    """Open the directory that a mount on `name` hides, or return None when this process may not (CAP_SYS_ADMIN).

    A clone of the parent's mount alone, made by open_tree(2), has no mounts on top.
    """
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH
    clone = int(_libc.syscall(_SYS_OPEN_TREE, parent_fd, b"", flags))
    if clone < 0:
        return None
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=clone)
    except OSError:
        return None
    finally:
        os.close(clone)
