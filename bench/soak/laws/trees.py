"""Trees that hypothesis makes are captured, changed, captured again and restored, by the word of foreign tools.

A case is one tree and one change of it on ext4. Each of the two versions is restored, and rsync, mtree, getfattr,
getfacl and lsattr must see no difference; so must a look at the holes. Captures go by the capture index, and one that
reads every file must give the same version. A tree that breaks the law is made as small as hypothesis can.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import torture
from cloner_agent.capture.job import Captured, CaptureOptions, capture
from cloner_server.store.local import LocalSink, LocalStore
from clones import restore_from
from soak.book import Entry
from soak.law import Case, Figures, Law, require, share
from store_images import Key

_MIB = 1 << 20
_AT_REST_NS = 10_000_000_000
_TOOLS = (torture.mtree_of, torture.getfattr_of, torture.getfacl_of, torture.lsattr_of, torture.holes_of)
_SIZES = (0, 1, 4095, 4096, 4097, 60_000, _MIB - 1, _MIB, _MIB + 1, 3 * _MIB)

names = st.one_of(
    st.binary(min_size=1, max_size=12).filter(lambda name: not {0, 47} & set(name) and name not in (b".", b"..")),
    st.sampled_from([b"a", b"a-b", b"a.b", b"aa", b"b", "ü".encode(), b"-rf", b" ", b"\n", b"n" * 255, b"\xff"]),
)
_modes = st.sampled_from([0o644, 0o755, 0o600, 0o4755, 0o2711, 0o1777, 0o400, 0o000, 0o7777])
_ids = st.one_of(st.just(0), st.integers(0, 70_000), st.just(4_294_967_294))
_times = st.integers(-1_000_000_000_000_000_000, 4_000_000_000_000_000_000)
_attributes = st.dictionaries(
    st.sampled_from(["user.a", "user.\u00fc", "trusted.b", "security.selinux", "user.long"]),
    st.one_of(st.binary(max_size=30), st.just(b"v" * 3000)),
    max_size=2,
)
_acls = st.sampled_from([(), (), (), ("u:1234:rw,m::rw",), ("g:4321:r-x,m::r-x", "-d"), ("u:7:---,g::r,m::rwx",)])
_flags = st.sampled_from(["", "", "", "", "", "+d", "+A", "+S", "+i", "+a"])


@dataclass(frozen=True)
class Thing:
    """One entry of a directory: what it is, and what is said of it."""

    kind: str  # file, sparse, directory, symlink, fifo, device, link
    size: int
    number: int  # tells contents, holes, targets and devices apart
    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    attributes: dict[str, bytes]
    acl: tuple[str, ...]
    flags: str


things = st.builds(
    Thing,
    kind=st.sampled_from(
        ["file"] * 5 + ["directory"] * 3 + ["sparse", "sparse", "symlink", "fifo", "device", "link", "link"]
    ),
    size=st.one_of(st.integers(0, 10_000), st.sampled_from(_SIZES)),
    number=st.integers(0, 1 << 16),
    mode=_modes,
    owner=st.tuples(_ids, _ids),
    mtime_ns=_times,
    attributes=_attributes,
    acl=_acls,
    flags=_flags,
)
_entries = st.tuples(st.integers(0, 100), names, things)
trees = st.one_of(st.lists(_entries, max_size=12), st.lists(_entries, min_size=12, max_size=50))
"""What is added one after the other: the place among the directories there are, the name, and the thing."""
changes = st.lists(
    st.tuples(
        st.sampled_from(["write", "grow", "cut", "remove", "rename", "touch", "chmod"]), st.integers(0, 1000), things
    ),
    min_size=1,
    max_size=8,
)


@dataclass
class _Bench:
    """Where trees are made and restored."""

    source: Path
    target: Path
    work: Path
    figures: dict[str, float | str]


@contextmanager
def open_trees(work: Path) -> Iterator[Case]:
    """All cases share two filesystems, each has directories of its own on them."""
    with torture.ext4(work / "source") as source, torture.ext4(work / "target") as target:

        def case(number: int) -> Figures:
            bench = _Bench(source, target, work, {})

            @seed(number)
            @settings(
                max_examples=2,  # the first is the empty tree, whatever the seed
                database=None,
                deadline=None,
                phases=(Phase.generate, Phase.shrink),
                suppress_health_check=list(HealthCheck),
                print_blob=False,
                derandomize=False,
            )
            @given(trees, changes)
            def hold(tree: list[tuple[int, bytes, Thing]], change: list[tuple[str, int, Thing]]) -> None:
                _hold(bench, tree, change)

            hold()
            return bench.figures

        yield case


def _hold(bench: _Bench, tree: list[tuple[int, bytes, Thing]], change: list[tuple[str, int, Thing]]) -> None:
    if not tree:
        return
    with tempfile.TemporaryDirectory(dir=bench.work) as directory:
        store = LocalStore(Path(directory), Key())
        source = _fresh(bench.source)
        try:
            # Not at the top: names drawn by chance have been `proc`, of which no capture takes the content.
            _make(source / "in", tree)
            first = _round(bench, store, source)
            _change(source / "in", change)
            second = _round(bench, store, source)
            require(store.check(read_data=True).faults == (), "the store has faults")
        finally:
            _remove(source)
    bench.figures = {
        "inodes": first.inodes,
        "recalled": second.notes.recalled,
        "links": sum(thing.kind == "link" for _, _, thing in tree),
        "holes": sum(thing.kind == "sparse" for _, _, thing in tree),
        "big": sum(thing.size >= _MIB and thing.kind in ("file", "sparse") for _, _, thing in tree),
    }


def _round(bench: _Bench, store: LocalStore, source: Path) -> Captured:
    """Capture and restore the tree as it is now."""
    captured = _captured(bench, store, source)
    require(not captured.notes.inexact and not captured.notes.vanished, "a tree that nobody changes is not exact")
    target = _fresh(bench.target)
    try:
        restore_from(store, bytes.fromhex(captured.record.version), target, workers=1)
        for tool in _TOOLS:
            wanted, seen = tool(source), tool(target)
            require(seen == wanted, f"{tool.__name__} sees another tree:\n{_first_difference(str(wanted), str(seen))}")
        differences = torture.rsync_differences(source, target)
        require(differences == "", f"rsync sees another tree:\n{differences}")
    finally:
        _remove(target)
    again = _captured(bench, store, source, is_rehash=True)
    require(again.record.version == captured.record.version, "a capture that reads every file gives another version")
    require(again.new_packs == 0, "content that is there was sent again")
    return captured


def _captured(bench: _Bench, store: LocalStore, source: Path, *, is_rehash: bool = False) -> Captured:
    """Capture as if files had been at rest for a while: else none of them would be in the index."""
    indexes = store.files.root / "of-the-node"
    indexes.mkdir(exist_ok=True)
    options = CaptureOptions("golden", esp=None, allow_secrets=True, indexes=indexes, is_rehash=is_rehash)
    return capture(source, LocalSink(store), options, clock_ns=lambda: time.time_ns() + _AT_REST_NS)


def _first_difference(wanted: str, seen: str) -> str:
    pairs = zip(wanted.splitlines(), seen.splitlines(), strict=False)
    return next((f"- {one}\n+ {two}" for one, two in pairs if one != two), "one of them ends earlier")


def _fresh(parent: Path) -> Path:
    """Make a directory whose path is as long on both filesystems: tools tell it."""
    path = parent / "tree"
    path.mkdir()
    return path


def _remove(path: Path) -> None:
    torture.clear_locks(path)
    shutil.rmtree(path)


def _make(root: Path, tree: list[tuple[int, bytes, Thing]]) -> None:
    """Add things one after the other; metadata of directories at the end, flags last of all."""
    root.mkdir()
    directories, files, late = [os.fsencode(root)], list[bytes](), list[tuple[bytes, Thing]]()
    for place, name, thing in tree:
        path = directories[place % len(directories)] + b"/" + name
        if os.path.lexists(path) or len(path) > 3000:
            continue
        if thing.kind == "directory":
            os.mkdir(path)
            directories.append(path)
        elif thing.kind == "link":
            if not files:
                continue
            os.link(files[thing.number % len(files)], path, follow_symlinks=False)
            continue  # what is said of the other name is said of this one
        else:
            _make_leaf(path, thing)
            files.append(path)
        late.append((path, thing))
    for path, thing in reversed(late):
        _say(path, thing)
    for path, thing in late:
        if thing.flags and stat.S_ISREG(os.lstat(path).st_mode):
            torture.run("chattr", thing.flags, path)


def _make_leaf(path: bytes, thing: Thing) -> None:
    if thing.kind == "symlink":
        os.symlink((b"../" * (thing.number % 9) + b"%d" % thing.number) or b"x", path)
    elif thing.kind == "fifo":
        os.mkfifo(path)
    elif thing.kind == "device":
        kind = stat.S_IFCHR if thing.number % 2 else stat.S_IFBLK
        os.mknod(path, kind | 0o600, os.makedev(thing.number % 4096, thing.number))
    else:
        with open(path, "wb") as file:
            if thing.kind == "sparse":
                for gap in range(1 + thing.number % 3):
                    file.seek((gap + thing.number % 2) * 96 * 1024)
                    file.write(_content(thing.number + gap, min(thing.size, 20_000)))
                file.truncate(max(file.tell(), thing.size) + (thing.number % 5) * 40_000)
            else:
                file.write(_content(thing.number, thing.size))


def _content(number: int, size: int) -> bytes:
    """Return bytes, half of them such as compress; some files have the same."""
    return (f"{number % 50} ".encode() * (size // 2 + 1))[: size // 2] + _noise(number % 50, size - size // 2)


def _noise(number: int, size: int) -> bytes:
    from blake3 import blake3

    return blake3(b"%d" % number).digest(length=size) if size else b""


def _say(path: bytes, thing: Thing) -> None:
    """Give an entry its owner, mode, attributes, ACL and time."""
    os.chown(path, *thing.owner, follow_symlinks=False)
    kind = stat.S_IFMT(os.lstat(path).st_mode)
    if kind != stat.S_IFLNK:
        os.chmod(path, thing.mode)
    for name, value in thing.attributes.items():
        # Users may set attributes on files and directories alone, xattr(7).
        if kind in (stat.S_IFREG, stat.S_IFDIR) or name.startswith("trusted."):
            os.setxattr(path, name, value, follow_symlinks=False)
    if thing.acl and kind in (stat.S_IFREG, stat.S_IFDIR) and ("-d" not in thing.acl or kind == stat.S_IFDIR):
        torture.run("setfacl", *thing.acl[1:], "-m", thing.acl[0], "--", path)
    os.utime(path, ns=(thing.mtime_ns, thing.mtime_ns), follow_symlinks=False)


def _change(root: Path, change: list[tuple[str, int, Thing]]) -> None:
    """Change the tree as people and programs do; times are put back half the time, as rsync and tar do."""
    for what, place, thing in change:
        paths = sorted(os.path.join(folder, name) for folder, _, files in os.walk(os.fsencode(root)) for name in files)
        if not paths:
            _make_leaf(os.fsencode(root) + b"/new", replace(thing, kind="file"))
            continue
        path = paths[place % len(paths)]
        status = os.lstat(path)
        is_file = stat.S_ISREG(status.st_mode)
        if is_file:
            torture.run("chattr", "-ia", "--", path)
        if what == "remove":
            os.unlink(path)
            continue
        if what == "rename":
            if not os.path.lexists(path[:-1] + b"~"):
                os.rename(path, path[:-1] + b"~")
            continue
        if what == "touch" or not is_file:
            os.utime(path, ns=(0, thing.mtime_ns), follow_symlinks=False)
            continue
        if what == "chmod":
            os.chmod(path, thing.mode)
            continue
        with open(path, "r+b") as file:
            if what == "cut":
                file.truncate(status.st_size // 2)
            else:
                file.seek(0 if what == "write" else status.st_size)
                file.write(_content(thing.number, min(thing.size, 5000) or 1))
        if thing.number % 2:
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def enough(entries: Sequence[Entry]) -> str:
    """See `Law.enough`: trees with links, holes and big files came."""
    lacking = [
        name
        for name in ("links", "holes", "big", "recalled")
        if share(entries, lambda figures, name=name: float(figures.get(name, 0)) > 0) < 0.2  # type: ignore[misc]
    ]
    return f"too few trees have {', '.join(lacking)}" if lacking else ""


LAW = Law(
    "trees",
    "a tree that hypothesis made, and a change of it, are captured and restored: no foreign tool sees a difference",
    1000,
    open_trees,
    enough=enough,
)
