"""What differs between two trees, told as both stream by in their order.

Memory: five bytes for each inode of the first tree, and what is told, which is bounded; the trees may have millions
of inodes. Reads no content: which files say more (packages, the name of the system) is told with their records.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntFlag

from cloner_core.admin.differences import ChangeCounts, Difference, DirectorySize, PathChange
from cloner_core.image.inode import Inode, Kind
from cloner_core.image.packages import DPKG_FOLDER, DPKG_STATUS, FOREIGN, NO_LIST

OS_RELEASE = (b"etc/os-release", b"usr/lib/os-release")  # the first is mostly a link to the second
MOST_ETC = 10_000
"""Paths of /etc that are told one by one."""
MOST_DIRECTORIES = 30
MOST_KEPT = 20_000
"""Records of files that say more, of each tree."""

_ETC = b"etc/"
_MODULES = (b"lib/modules/", b"usr/lib/modules/")
_KERNELS = (b"boot/vmlinuz-", b"boot/vmlinux-", b"boot/Image-")
_OF_KERNELS = (*_MODULES, *_KERNELS)
_MOST_KERNELS = 1000


class Differs(IntFlag):
    """In what two records of one path differ."""

    KIND = 1
    CONTENT = 2  # bytes, target of a link, number of a device
    NAMES = 4  # of which inodes it is one more name
    MODE = 8
    OWNER = 16
    ATTRIBUTES = 32
    FLAGS = 64
    TIME = 128


_EQUAL = Differs(0)
_CHANGED = Differs.KIND | Differs.CONTENT | Differs.NAMES
_METADATA = Differs.MODE | Differs.OWNER | Differs.ATTRIBUTES | Differs.FLAGS


@dataclass(frozen=True, slots=True)
class Pair:
    """One path of two trees: its record in each, None where a tree does not have it."""

    before: Inode | None
    after: Inode | None
    differs: Differs = _EQUAL  # of a path that both have

    @property
    def path(self) -> bytes:
        """The path of both."""
        record = self.before or self.after
        assert record is not None
        return record.path


def pair_trees(before: Iterable[Inode], after: Iterable[Inode]) -> Iterator[Pair]:
    """Give every path of either tree in their common order; the records of each must be in the order of a tree."""
    partners = _Partners()
    old_records, new_records = iter(before), iter(after)
    old, new = next(old_records, None), next(new_records, None)
    while old is not None or new is not None:
        if new is None or (old is not None and order_key(old.path) < order_key(new.path)):
            partners.add(0, is_changed=False)
            yield Pair(old, None)
            old = next(old_records, None)
        elif old is None or order_key(new.path) < order_key(old.path):
            yield Pair(None, new)
            new = next(new_records, None)
        else:
            differs = _differs(old, new, partners)
            partners.add(new.number, is_changed=bool(differs & (Differs.KIND | Differs.CONTENT)))
            yield Pair(old, new, differs)
            old, new = next(old_records, None), next(new_records, None)


def order_key(path: bytes) -> bytes:
    """Return what sorts as the records of a tree do: by components. No path holds a NUL, which sorts before all."""
    return path.replace(b"/", b"\0")


class _Partners:
    """By number in the first tree: the inode of the second that has its path, and whether that holds something else.

    Numbers of leaders differ between trees; only so is it known that two links still lead to the same file.
    """

    def __init__(self) -> None:
        self._numbers = array("I", [0])
        self._changed = bytearray(1)

    def add(self, number: int, *, is_changed: bool) -> None:
        self._numbers.append(number)
        self._changed.append(is_changed)

    def compare(self, old: Inode, new: Inode) -> Differs:
        if self._numbers[old.leader] != new.leader:
            return Differs.NAMES
        return Differs.CONTENT if self._changed[old.leader] else _EQUAL


def _differs(old: Inode, new: Inode, partners: _Partners) -> Differs:
    if old.kind is not new.kind:
        linked = Kind.LINK in (old.kind, new.kind) and Kind.DIRECTORY not in (old.kind, new.kind)
        return Differs.NAMES if linked else Differs.KIND
    if old.kind is Kind.LINK:
        return partners.compare(old, new)
    found = _EQUAL
    is_same_size = (old.size, old.holes, old.device) == (new.size, new.holes, new.device)
    if not is_same_size or old.chunks != new.chunks or old.target != new.target:
        found |= Differs.CONTENT
    if old.mode != new.mode:
        found |= Differs.MODE
    if (old.uid, old.gid) != (new.uid, new.gid):
        found |= Differs.OWNER
    if old.xattrs != new.xattrs:
        found |= Differs.ATTRIBUTES
    if old.flags != new.flags:
        found |= Differs.FLAGS
    return found | Differs.TIME if old.mtime_ns != new.mtime_ns else found


@dataclass(frozen=True, slots=True)
class TreeDiff:
    """What two trees differ in, and the records of files that say more."""

    counts: ChangeCounts
    kernels: tuple[Difference, ...]
    etc: tuple[PathChange, ...]
    etc_more: int
    directories: tuple[DirectorySize, ...]
    before: dict[bytes, Inode]  # regular files: dpkg's, os-release, lists of other package managers
    after: dict[bytes, Inode]


def compare_trees(before: Iterable[Inode], after: Iterable[Inode], *, most_etc: int = MOST_ETC) -> TreeDiff:
    """Return what differs; the records of each tree come in its order. Of /etc `most_etc` paths are told."""
    counts = dict.fromkeys(ChangeCounts.__struct_fields__, 0)
    etc: list[PathChange] = []
    etc_count = 0
    sizes, kernels = _Sizes(), _Kernels()
    told: tuple[dict[bytes, Inode], dict[bytes, Inode]] = ({}, {})
    for pair in pair_trees(before, after):
        change = _change(pair)
        counts[change] += 1
        path = pair.path
        sizes.add(path, pair)
        kernels.add(path, pair)
        if change not in ("same", "times") and (path + b"/").startswith(_ETC):
            etc_count += 1
            if len(etc) < most_etc:
                etc.append(PathChange(path=shown(path), change=change, detail=_detail(pair)))
        for record, kept in ((pair.before, told[0]), (pair.after, told[1])):
            if record is not None and record.kind is Kind.FILE and len(kept) < MOST_KEPT and _says_more(path):
                kept[path] = record
    return TreeDiff(
        counts=ChangeCounts(**counts),
        kernels=kernels.differences(),
        etc=tuple(etc),
        etc_more=etc_count - len(etc),
        directories=sizes.greatest(),
        before=told[0],
        after=told[1],
    )


def shown(path: bytes) -> str:
    """Return a path of a tree as people and JSON are told it."""
    return "/" + path.decode(errors="backslashreplace")


def data_bytes(inode: Inode) -> int:
    """Return the bytes of a file, its holes not counted; 0 of anything else."""
    return inode.spans().data_bytes if inode.holes else inode.size


def _says_more(path: bytes) -> bool:
    if path.startswith(DPKG_FOLDER):
        return not path.endswith(NO_LIST)
    return path == DPKG_STATUS or path in OS_RELEASE or path in FOREIGN


def _change(pair: Pair) -> str:
    if pair.before is None:
        return "added"
    if pair.after is None:
        return "removed"
    if not pair.differs:
        return "same"
    if pair.differs & _CHANGED:
        return "changed"
    if pair.differs & _METADATA:
        return "metadata"
    return "times"


def _detail(pair: Pair) -> str:
    old, new, differs = pair.before, pair.after, pair.differs
    if old is None or new is None:
        return ""
    parts = []
    if differs & Differs.KIND:
        parts.append(f"{_named(old.kind)} → {_named(new.kind)}")
    if differs & Differs.NAMES:
        parts.append("one more name of another file than before")
    if differs & Differs.CONTENT:
        parts.append(_content_detail(old, new))
    if differs & Differs.MODE:
        parts.append(f"mode {old.mode:04o} → {new.mode:04o}")
    if differs & Differs.OWNER:
        parts.append(f"owner {old.uid}:{old.gid} → {new.uid}:{new.gid}")
    if differs & Differs.ATTRIBUTES:
        names = sorted({name for name, _ in set(old.xattrs) ^ set(new.xattrs)})
        parts.append(f"attributes {', '.join(name.decode(errors='backslashreplace') for name in names)}")
    if differs & Differs.FLAGS:
        parts.append(f"flags {old.flags:#x} → {new.flags:#x}")
    return ", ".join(parts)


def _content_detail(old: Inode, new: Inode) -> str:
    if old.kind is Kind.SYMLINK:
        return f"to {old.target.decode(errors='backslashreplace')} → {new.target.decode(errors='backslashreplace')}"
    if old.kind is Kind.FILE:
        return f"{old.size} → {new.size} bytes" if old.size != new.size else f"other {new.size} bytes"
    return "content"


def _named(kind: Kind) -> str:
    return kind.name.lower().replace("symlink", "symbolic link")


class _Sizes:
    """Data by directory, of the first two levels; a directory is judged when the stream has left it."""

    def __init__(self) -> None:
        self._open: list[tuple[bytes, list[int]]] = []  # from the top: path with a slash, bytes of both trees
        self._greatest: list[tuple[int, bytes, int, int]] = []  # a heap, the smallest change on top

    def add(self, path: bytes, pair: Pair) -> None:
        while self._open and not path.startswith(self._open[-1][0]):
            self._judge()
        for record, side in ((pair.before, 0), (pair.after, 1)):
            if record is not None and record.kind is Kind.FILE:
                size = data_bytes(record)
                for _, sizes in self._open:
                    sizes[side] += size
        is_directory = any(record and record.kind is Kind.DIRECTORY for record in (pair.before, pair.after))
        if is_directory and path and len(self._open) == path.count(b"/") < 2:
            self._open.append((path + b"/", [0, 0]))

    def greatest(self) -> tuple[DirectorySize, ...]:
        while self._open:
            self._judge()
        by_change = sorted(self._greatest, key=lambda entry: (-entry[0], entry[1]))
        return tuple(DirectorySize(shown(path), old, new) for _, path, old, new in by_change)

    def _judge(self) -> None:
        path, (old, new) = self._open.pop()
        if old != new:
            heapq.heappush(self._greatest, (abs(new - old), path[:-1], old, new))
            if len(self._greatest) > MOST_DIRECTORIES:
                heapq.heappop(self._greatest)


@dataclass(slots=True)
class _Kernel:
    """One release, of both trees."""

    has_image: list[bool] = field(default_factory=lambda: [False, False])
    has_modules: list[bool] = field(default_factory=lambda: [False, False])
    is_other_image: bool = False
    other_modules: int = 0  # files of its modules that differ


class _Kernels:
    """Kernels in /boot, and folders of modules."""

    def __init__(self) -> None:
        self._found: dict[str, _Kernel] = {}

    def add(self, path: bytes, pair: Pair) -> None:
        if not path.startswith(_OF_KERNELS):
            return
        for folder in _MODULES:
            if path.startswith(folder):
                release, slash, _ = path[len(folder) :].partition(b"/")
                if slash:
                    self._note_module(release, pair)
                else:
                    self._note(release, pair, Kind.DIRECTORY)
                return
        for head in _KERNELS:
            if path.startswith(head) and path.count(b"/") == 1:
                self._note(path[len(head) :], pair, Kind.FILE)
                return

    def _note(self, release: bytes, pair: Pair, kind: Kind) -> None:
        present = [record is not None and record.kind is kind for record in (pair.before, pair.after)]
        kernel = self._of(release) if any(present) else None
        if kernel is None:
            return
        seen = kernel.has_modules if kind is Kind.DIRECTORY else kernel.has_image
        seen[:] = [was or now for was, now in zip(seen, present, strict=True)]
        if kind is Kind.FILE and all(present) and pair.differs & Differs.CONTENT:
            kernel.is_other_image = True

    def _note_module(self, release: bytes, pair: Pair) -> None:
        records = [record for record in (pair.before, pair.after) if record is not None]
        is_other = len(records) == 1 or pair.differs & _CHANGED
        is_file = any(record.kind is not Kind.DIRECTORY for record in records)
        if is_other and is_file and (kernel := self._of(release)) is not None:
            kernel.other_modules += 1

    def _of(self, release: bytes) -> _Kernel | None:
        name = release.decode(errors="backslashreplace")
        if name not in self._found and len(self._found) >= _MOST_KERNELS:
            return None
        return self._found.setdefault(name, _Kernel())

    def differences(self) -> tuple[Difference, ...]:
        changes = []
        for release, kernel in sorted(self._found.items()):
            before, after = _there_is(kernel, 0), _there_is(kernel, 1)
            is_both = bool(before and after)
            if is_both and kernel.is_other_image:
                after = after.replace("kernel", "kernel (another build)")
            if is_both and all(kernel.has_modules) and kernel.other_modules:
                after = after.replace("modules", f"modules ({kernel.other_modules} files differ)")
            if before != after:
                changes.append(Difference(name=release, before=before, after=after))
        return tuple(changes)


def _there_is(kernel: _Kernel, side: int) -> str:
    parts = [("kernel", kernel.has_image[side]), ("modules", kernel.has_modules[side])]
    return ", ".join(name for name, is_there in parts if is_there)
