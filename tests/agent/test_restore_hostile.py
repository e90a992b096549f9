"""Bytes that are not the version's own are refused before the files they are for are touched."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest

from cloner_agent.restore.errors import RestoreError
from cloner_agent.restore.job import restore
from cloner_agent.restore.placer import Placer
from cloner_agent.restore.source import DirectorySource
from cloner_agent.restore.table import spill_tree
from cloner_agent.rooted import Rooted
from cloner_core.errors import IntegrityError
from cloner_core.image.compression import compress
from cloner_core.image.inode import Inode, Kind
from cloner_core.image.packmap import PackRef
from cloner_core.image.placement import ENTRY, Entry, Placement, encode_placement
from cloner_core.image.tree import Filesystem
from cloner_server.store.local import LocalStore
from clones import Ready, capture_into, make_ready
from core.image.trees import file_inode, make_tree, root_inode
from store_images import Key

pytestmark = pytest.mark.root  # restoring gives files away


@dataclass(frozen=True)
class Changed:
    """A source that changes what it fetches."""

    source: DirectorySource
    pack: Callable[[bytes], bytes] = bytes
    placement: Callable[[bytes], bytes] = bytes

    def fetch(self, ordinal: int, pack: PackRef) -> tuple[bytes, bytes]:
        stored, placement = self.source.fetch(ordinal, pack)
        return self.pack(stored), self.placement(placement)


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    root = tmp_path / "golden"
    (root / "sub").mkdir(parents=True)
    (root / "a").write_bytes(os.urandom(5000))
    (root / "sub/b").write_bytes(os.urandom(3 << 20))
    (root / "sub/c").write_bytes(b"c")
    (root / "link").symlink_to("sub")
    return root


@pytest.fixture
def ready(golden: Path, tmp_path: Path) -> Ready:
    store = LocalStore(tmp_path / "store", Key())
    return make_ready(store, bytes.fromhex(capture_into(store, golden).record.version), tmp_path)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.mkdir()
    return path


def files_in(target: Path) -> list[str]:
    return sorted(path.name for path in target.rglob("*") if not path.is_dir() or path.is_symlink())


def flip(position: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


@pytest.mark.parametrize(
    "change", [flip(0), flip(1000), flip(-1 % 3_000_000), lambda data: data[:-1], lambda data: b""],
    ids=["first byte", "a byte", "a late byte", "cut", "empty"],
)  # fmt: skip
def test_a_damaged_pack_writes_nothing(ready: Ready, target: Path, change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(IntegrityError):
        restore(target, ready.spilled, ready.pack_map, Changed(ready.source, pack=change), workers=1)
    assert files_in(target) == []


HEADER = 8 + 32 + 32


def rewritten(change: Callable[[list[Entry]], list[Entry]]) -> Callable[[bytes], bytes]:
    """Return what gives a placement other entries, the count right."""

    def apply(data: bytes) -> bytes:
        entries = change(list(ENTRY.iter_unpack(data[HEADER + 4 :])))
        return data[:HEADER] + struct.pack("<I", len(entries)) + b"".join(ENTRY.pack(*entry) for entry in entries)

    return apply


def _each(change: Callable[[Entry], Entry]) -> Callable[[list[Entry]], list[Entry]]:
    return lambda entries: [change(entry) for entry in entries]


HOSTILE: dict[str, Callable[[list[Entry]], list[Entry]]] = {
    "an inode beyond the tree": _each(lambda entry: (entry[0] + 1000, *entry[1:])),
    "inode 0": lambda entries: [(0, *entries[0][1:])],
    "a directory": lambda entries: [(1, *entries[0][1:])],
    "a link": lambda entries: [(3, *entries[0][1:])],
    "another file": lambda entries: [(entries[-1][0], *entries[0][1:])],
    "an offset inside a chunk": lambda entries: [(entries[0][0], 1, *entries[0][2:])],
    "an offset far beyond the file": lambda entries: [(entries[0][0], 1 << 63, *entries[0][2:])],
    "bytes outside the pack": lambda entries: [(*entries[0][:2], 4 << 20, entries[0][3])],
    "other bytes of the pack": lambda entries: [(*entries[0][:2], entries[0][2] + 1, entries[0][3])],
    "a shorter chunk": lambda entries: [(*entries[0][:3], entries[0][3] - 1)],
    "a chunk of nothing": lambda entries: [(*entries[0][:3], 0)],
    "a chunk of 4 GiB": lambda entries: [(*entries[0][:3], (1 << 32) - 1)],
    "the same entry twice": lambda entries: [entries[0], *entries],
    "entries backwards": lambda entries: entries[::-1],
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_placement_writes_nothing_wrong(
    ready: Ready, golden: Path, target: Path, change: Callable[[list[Entry]], list[Entry]]
) -> None:
    source = Changed(ready.source, placement=rewritten(change))
    with pytest.raises(IntegrityError):
        restore(target, ready.spilled, ready.pack_map, source, workers=1)
    for name in files_in(target):
        (path,) = target.rglob(name)
        assert path.read_bytes() == (golden / path.relative_to(target)).read_bytes()


@pytest.mark.parametrize("change", [flip(0), flip(8), flip(40), flip(72), lambda data: data[:-1]])
def test_a_placement_with_another_head_is_refused(ready: Ready, target: Path, change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(IntegrityError):
        restore(target, ready.spilled, ready.pack_map, Changed(ready.source, placement=change), workers=1)
    assert files_in(target) == []


def test_a_placement_that_leaves_a_file_out_is_found_at_the_end(ready: Ready, target: Path) -> None:
    source = Changed(ready.source, placement=rewritten(lambda entries: entries[1:]))
    with pytest.raises(IntegrityError, match="got 0 of its 1 chunks"):
        restore(target, ready.spilled, ready.pack_map, source)


def test_a_missing_pack_is_told(ready: Ready, target: Path, tmp_path: Path) -> None:
    digits = ready.pack_map.packs[0].digest.hex()
    (tmp_path / "store/packs" / digits[:2] / digits).unlink()
    with pytest.raises(IntegrityError, match="missing"):
        restore(target, ready.spilled, ready.pack_map, ready.source)


def test_packs_that_never_come_are_no_success(ready: Ready, target: Path) -> None:
    with pytest.raises(IntegrityError, match="only 0 of 1 packs came"):
        restore(target, ready.spilled, ready.pack_map, ready.source, order=list)


def test_a_pack_beyond_the_map_is_refused(ready: Ready, target: Path) -> None:
    with pytest.raises(IntegrityError, match="not in the map"):
        restore(target, ready.spilled, ready.pack_map, ready.source, order=lambda: [1])


def test_a_target_that_holds_files_is_refused_and_left_alone(ready: Ready, target: Path) -> None:
    (target / "sub").mkdir()
    (target / "sub/mine").write_text("mine")
    with pytest.raises(RestoreError, match="not empty"):
        restore(target, ready.spilled, ready.pack_map, ready.source)
    assert files_in(target) == ["mine"]
    assert (target / "sub/mine").read_text() == "mine"


def test_a_link_in_the_place_of_a_directory_leads_nowhere(ready: Ready, target: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (target / "sub").symlink_to(outside)
    pack = ready.pack_map.packs[0]
    placer = Placer(Rooted(target), ready.spilled.table, ready.pack_map.version)
    with pytest.raises(RestoreError):
        placer.place(pack, *ready.source.fetch(0, pack))
    assert list(outside.iterdir()) == []


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(
    ready: Ready, golden: Path, target: Path, tmp_path: Path
) -> None:
    (target / "sub").mkdir()
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (target / "a").symlink_to(victim)
    pack = ready.pack_map.packs[0]
    placer = Placer(Rooted(target), ready.spilled.table, ready.pack_map.version)
    placer.place(pack, *ready.source.fetch(0, pack))
    assert victim.read_text() == "untouched"
    assert not (target / "a").is_symlink()
    assert (target / "a").read_bytes() == (golden / "a").read_bytes()


class Segments:
    """A source of the segments of a made-up tree."""

    def __init__(self, raws: dict[bytes, bytes]) -> None:
        self.raws = raws

    def segment(self, digest: bytes) -> bytes:
        return compress(self.raws[digest])


TRAVERSAL = [
    [Inode(2, Kind.SYMLINK, b"etc", 0o777, target=b"/etc"), file_inode(3, b"etc/passwd", b"x")],
    [Inode(2, Kind.DIRECTORY, b"..", 0o755), file_inode(3, b"../x", b"x")],
    [file_inode(2, b"/etc/passwd", b"x")],
    [Inode(2, Kind.DIRECTORY, b"a", 0o755), file_inode(3, b"a/../../x", b"x")],
    [file_inode(2, b"a\0b", b"x")],
]


@pytest.mark.parametrize("inodes", TRAVERSAL)
def test_a_tree_that_leads_out_is_refused_before_anything_is_made(inodes: list[Inode], tmp_path: Path) -> None:
    root, segments = make_tree([root_inode(), *inodes])
    source = Segments({segment.ref.digest: segment.raw for segment in segments})
    with pytest.raises(IntegrityError):
        spill_tree(root, source, tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_segment_of_another_tree_or_too_long_is_refused(tmp_path: Path) -> None:
    root, segments = make_tree([root_inode(), file_inode(2, b"a", b"x")])
    _, others = make_tree([root_inode(), file_inode(2, b"b", b"x")])
    name = segments[0].ref.digest
    for raw in (others[0].raw, segments[0].raw + b"\x00", b"", bytes(1 << 24)):
        with pytest.raises(IntegrityError):
            spill_tree(root, Segments({name: raw}), tmp_path)


def test_totals_that_lie_are_refused(tmp_path: Path) -> None:
    root, segments = make_tree([root_inode(), file_inode(2, b"a", b"x")])
    lying = msgspec.structs.replace(root, filesystems=(Filesystem(b"", "root", data_bytes=1 << 40),))
    with pytest.raises(IntegrityError, match="totals"):
        spill_tree(lying, Segments({segment.ref.digest: segment.raw for segment in segments}), tmp_path)


def test_a_placement_of_no_entries_is_harmless(ready: Ready, target: Path) -> None:
    pack = ready.pack_map.packs[0]
    stored, _ = ready.source.fetch(0, pack)
    empty = encode_placement(Placement(ready.pack_map.version, pack.digest, b""))
    placer = Placer(Rooted(target), ready.spilled.table, ready.pack_map.version)
    placed, finished = placer.place(pack, stored, empty)
    assert (placed, finished) == (replace(placed, finished=0, data_bytes=0, partial=()), [])
