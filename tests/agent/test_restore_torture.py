"""What was captured is restored, by the word of foreign tools."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import torture
from cloner_agent.capture.job import Captured
from cloner_server.store.local import LocalStore
from clones import capture_into, restore_from, scatter
from soak.laws import pack_orders
from store_images import Key

pytestmark = pytest.mark.root


@dataclass(frozen=True)
class Pair:
    """A torture tree, the store it was captured into, and what was restored from there."""

    source: Path
    target: Path
    store: LocalStore
    captured: Captured

    @property
    def version(self) -> bytes:
        return bytes.fromhex(self.captured.record.version)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    place = tmp_path_factory.mktemp("torture")
    with torture.ext4(place / "source") as source, torture.ext4(place / "target") as target:
        torture.make_torture(source)
        store = LocalStore(place / "store", Key())
        captured = capture_into(store, source, esp=None)
        restore_from(store, bytes.fromhex(captured.record.version), target)
        yield Pair(source, target, store, captured)


def test_the_capture_took_everything_as_it_was(pair: Pair) -> None:
    notes = pair.captured.notes
    assert (notes.inexact, notes.vanished, notes.sockets, notes.dropped_evm) == ([], [], [], 0)
    assert pair.captured.record.findings == ()
    assert pair.store.check(read_data=True).faults == ()


@pytest.mark.parametrize(
    "tool", [torture.mtree_of, torture.getfattr_of, torture.getfacl_of, torture.lsattr_of, torture.holes_of]
)
def test_a_foreign_tool_sees_the_same_tree(pair: Pair, tool: Callable[[Path], object]) -> None:
    seen, wanted = tool(pair.target), tool(pair.source)
    assert len(wanted) > 5  # type: ignore[arg-type]
    assert seen == wanted


def test_rsync_would_change_nothing(pair: Pair) -> None:
    assert torture.rsync_differences(pair.source, pair.target) == ""


def test_the_restored_tree_captured_again_is_the_same_version(pair: Pair) -> None:
    again = capture_into(pair.store, pair.target, esp=None)
    assert again.record.version == pair.captured.record.version
    assert again.new_packs == 0


def test_preallocated_space_is_a_hole_whether_its_zeros_are_cached_or_not(pair: Pair) -> None:
    path = pair.source / "sparse/preallocated"
    os.sync()
    for is_read in (False, True):
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        if is_read:
            assert len(os.read(fd, 200_000)) == 200_000
        os.close(fd)
        again = capture_into(pair.store, pair.source, esp=None)
        assert again.record.version == pair.captured.record.version
    assert (pair.target / "sparse/preallocated").lstat().st_blocks == 8


def test_a_repack_keeps_the_version_and_restores_the_same(pair: Pair, tmp_path: Path) -> None:
    scatter(pair.store, pair.version, 7)
    before = pair.store.signed_map(pair.version)
    pair.store.repack(pair.version)
    assert pair.store.signed_map(pair.version).map != before.map
    assert pair.store.check(read_data=True).faults == ()
    with torture.ext4(tmp_path / "again") as target:
        restore_from(pair.store, pair.version, target)
        assert torture.rsync_differences(pair.source, target) == ""


@dataclass(frozen=True)
class Rule:
    """One rule of metadata: a path, what to look at, and what makes looking worth while."""

    name: str
    path: str
    look: Callable[[str], object]
    wanted: object


def _mode(path: str) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def _mtime(path: str) -> int:
    return os.lstat(path).st_mtime_ns


def _owner(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_uid, status.st_gid


def _links(path: str) -> int:
    return os.lstat(path).st_nlink


def _size_and_blocks(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_size, status.st_blocks


def _xattr(name: bytes) -> Callable[[str], bytes]:
    return lambda path: os.getxattr(path, name, follow_symlinks=False)


def _capability(path: str) -> bytes:
    return _xattr(b"security.capability")(path)[4:8]


def _flags(path: str) -> str:
    return "".join(sorted(set(torture.run("lsattr", "-d", path).split()[0]) - set("-e")))


def _acl(path: str) -> list[str]:
    text = torture.run("getfacl", "-n", "-c", "-p", path)
    return [line for line in text.splitlines() if line]


PLAIN = ["user::rw-", "group::r--", "other::r--"]
MASKED = ["user::rw-", "user:99:---", "group::r--", "mask::r--", "other::---"]
LABEL = b"system_u:object_r:etc_t:s0\0"
RULES = [
    Rule("set-id survives the change of owner", "modes/6711", _mode, 0o6711),
    Rule("a mode of nothing is kept", "modes/0", _mode, 0),
    Rule("the sticky bit is kept", "modes/d1777", _mode, 0o1777),
    Rule("owners are numbers up to the last", "modes/big-ids", _owner, (4_294_967_294, 4_000_000_000)),
    Rule("a link has its own owner", "symlinks/dangling", _owner, (1000, 2000)),
    Rule("a link has its own time", "symlinks/absolute", _mtime, 1_234_567_890_123_456_789),
    Rule("a device has its own mode", "devices/disk", _mode, 0o4640),
    Rule("a capability survives chown", "caps/owned", _capability, (1 << 10).to_bytes(4, "little")),
    Rule("a time before 1970 is kept to the nanosecond", "times/past", _mtime, -1_500_000_000_123_456_789),
    Rule("a directory's time is not that of its last entry", "times", _mtime, 1_000_000_000_000_000_007),
    Rule("a read-only directory has its file", "read-only/file", _mode, 0o644),
    Rule("a child did not inherit the default ACL anew", "acls/default/without", _acl, PLAIN),
    Rule("an ACL's mask is kept apart from the group", "acls/masked", _acl, MASKED),
    Rule("an attribute's name need not be UTF-8", "xattrs/user", _xattr(b"user.\xff\xfe"), b"name is no utf-8"),
    Rule("a label is kept raw", "xattrs/user", _xattr(b"security.selinux"), LABEL),
    Rule("a link has its own attribute", "symlinks/climbing", _xattr(b"trusted.link"), b"on a link"),
    Rule("three names of a file are one inode", "zz-links/10-3", _links, 3),
    Rule("two names of a symbolic link are one inode", "links/sym-2", _links, 2),
    Rule("a file of nothing but a hole has no blocks", "sparse/only", _size_and_blocks, (8 << 20, 0)),
    Rule("zeros that are data stay data", "sizes/zeros", _size_and_blocks, (2 << 20, 4096)),
    Rule("immutable is set last", "flags/immutable", _flags, "i"),
    Rule("append-only is set last", "flags/append", _flags, "a"),
    Rule("an immutable directory has its file", "flags/directory/inside", lambda path: Path(path).read_bytes(), b"x"),
    Rule("a flag not inherited in the source is not inherited here", "flags/inherited/has-not", _flags, ""),
    Rule("a flag inherited in the source is kept", "flags/inherited/has-them", _flags, "Ad"),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_of_metadata_holds(pair: Pair, rule: Rule) -> None:
    assert rule.look(str(pair.source / rule.path)) == rule.wanted
    assert rule.look(str(pair.target / rule.path)) == rule.wanted


def test_packs_in_any_order_by_any_number_of_processes_give_the_same_tree(tmp_path: Path) -> None:
    """At length: `./run soak pack-orders`."""
    with pack_orders.LAW.open(tmp_path) as case:
        assert {case(seed)["workers"] for seed in (1, 2)} == {"1", "2"}
