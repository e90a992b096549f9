"""A part of a tree is a valid tree of its own, with the content it had, whichever names of a file were chosen."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_agent.restore.selection import Owner, SelectedPacks, Selection, select
from cloner_agent.restore.table import SpilledTree, spill_tree
from cloner_core.errors import NotFoundError
from cloner_core.image.checker import TreeChecker
from cloner_core.image.compression import compress
from cloner_core.image.diffing import order_key
from cloner_core.image.inode import Inode, Kind
from cloner_core.image.limits import FORMAT
from cloner_core.image.packmap import PackMap, PackRef
from cloner_core.image.placement import ENTRY, Placement, decode_placement, encode_placement
from cloner_core.image.tree import Filesystem
from core.image.trees import file_inode, make_tree

ROOT, ESP = Filesystem(b"", "root"), Filesystem(b"boot/efi", "esp")
OWNER = Owner(1000, 100)


class Segments:
    """A source of segments that holds them."""

    def __init__(self, raws: dict[bytes, bytes]) -> None:
        self.raws = raws

    def segment(self, digest: bytes) -> bytes:
        return compress(self.raws[digest])


def spilled_of(inodes: Sequence[Inode], folder: Path, filesystems: tuple[Filesystem, ...] = (ROOT,)) -> SpilledTree:
    """Return these records, whose numbers do not matter, as a node has them; leaders are told by their numbers."""
    checker = TreeChecker(filesystems)
    for inode in inodes:
        checker.add(inode)
    root, segments = make_tree(inodes, checker.counted())
    return spill_tree(root, Segments({segment.ref.digest: segment.raw for segment in segments}), folder)


def records(spilled: SpilledTree) -> dict[bytes, Inode]:
    return {inode.path: inode for inode in spilled.table.range(1, spilled.table.count + 1)}


def directory(number: int, path: bytes) -> Inode:
    return Inode(number, Kind.DIRECTORY, path, 0o755)


def link(number: int, path: bytes, leader: int) -> Inode:
    return Inode(number, Kind.LINK, path, leader=leader)


SOME = (
    directory(1, b""),
    directory(2, b"a"),
    msgspec.structs.replace(file_inode(3, b"a/file", b"one"), mode=0o4751, xattrs=((b"user.x", b"1"),), flags=0x10),
    link(4, b"a/name", 3),
    directory(5, b"b"),
    file_inode(6, b"b/file", b"two"),
    link(7, b"b/name", 3),
    link(8, b"b/other", 3),
    Inode(9, Kind.CHARACTER, b"b/tty", 0o600, device=(4, 1)),
    link(10, b"b/tty2", 9),
    Inode(11, Kind.SYMLINK, b"lib", 0o777, target=b"usr/lib"),
)


@pytest.fixture
def some(tmp_path: Path) -> SpilledTree:
    return spilled_of(SOME, tmp_path)


def test_a_name_whose_leader_is_not_chosen_becomes_the_file(some: SpilledTree, tmp_path: Path) -> None:
    chosen = select(some, [b"b/name", b"b/other"], None, tmp_path)
    found = records(chosen.spilled)
    assert list(found) == [b"", b"b", b"b/name", b"b/other"]
    assert found[b"b/name"] == msgspec.structs.replace(SOME[2], number=3, path=b"b/name")
    assert found[b"b/other"] == link(4, b"b/other", 3)
    assert list(chosen.numbers) == [0, 1, 0, 3, 0, 2, 0, 0, 0, 0, 0, 0]


def test_everything_is_the_tree_as_it_was(some: SpilledTree, tmp_path: Path) -> None:
    for paths in ([], [b""], [b"a", b""]):
        assert tuple(records(select(some, paths, None, tmp_path).spilled).values()) == SOME


def test_a_file_alone_comes_with_the_folders_on_its_way(some: SpilledTree, tmp_path: Path) -> None:
    assert list(records(select(some, [b"a/file"], None, tmp_path).spilled)) == [b"", b"a", b"a/file"]


def test_for_another_owner_nothing_stays_that_only_root_can_make(some: SpilledTree, tmp_path: Path) -> None:
    chosen = select(some, [], OWNER, tmp_path)
    found = records(chosen.spilled)
    assert chosen.left_out == 2, "a device and its other name"
    assert {(inode.uid, inode.gid) for inode in found.values() if inode.kind is not Kind.LINK} == {(1000, 100)}
    assert (found[b"a/file"].mode, found[b"a/file"].xattrs, found[b"a/file"].flags) == (0o751, (), 0)
    assert (found[b"lib"].mode, found[b"lib"].target) == (0o777, b"usr/lib")
    assert chosen.spilled.late_flags == []


def test_what_lies_on_the_esp_has_no_owner_to_give(tmp_path: Path) -> None:
    loader = Inode(5, Kind.FILE, b"boot/efi/x", size=1, chunks=file_inode(1, b"x", b"x").chunks)
    inodes = (directory(1, b""), directory(2, b"a"), directory(3, b"boot"), directory(4, b"boot/efi"), loader)
    chosen = select(spilled_of(inodes, tmp_path, (ROOT, ESP)), [b"boot/efi"], OWNER, tmp_path)
    assert records(chosen.spilled)[b"boot/efi/x"] == msgspec.structs.replace(loader, number=4)


def test_every_path_that_is_not_there_is_named_with_the_link_in_its_way(some: SpilledTree, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        select(some, [b"a", b"lib/modules", b"nosuch", b"a/file/x"], None, tmp_path)
    for text in ("/lib/modules", "/nosuch", "/a/file/x"):
        assert text in caught.value.message
    assert caught.value.hint == "no link is followed; /lib is a link to usr/lib"


class Packs:
    """Two packs: one with the file of `a`, one with that of `b`."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        raws = (SOME[2], SOME[5])
        self.placements = {}
        packs = []
        for number, inode in ((3, raws[0]), (6, raws[1])):
            name = bytes([number]) * 32
            flat = ENTRY.pack(number, 0, 0, inode.size)
            self.placements[name] = encode_placement(Placement(b"v" * 32, name, flat))
            packs.append(PackRef(name, 1, inode.size, 1))
        self.pack_map = PackMap(FORMAT, b"v" * 32, b"i" * 32, tuple(packs))

    def placement(self, pack: PackRef) -> bytes:
        return self.placements[pack.digest]

    def fetch(self, ordinal: int, pack: PackRef) -> tuple[bytes, bytes]:
        self.asked.append(ordinal)
        return b"stored", self.placements[pack.digest]


def test_only_packs_that_are_needed_are_fetched_and_their_entries_renumbered(some: SpilledTree, tmp_path: Path) -> None:
    packs = Packs()
    chosen = select(some, [b"b/file"], None, tmp_path)
    needed = SelectedPacks(packs, packs.pack_map, chosen, packs.placement)
    assert needed.pack_map.packs == (packs.pack_map.packs[1],)
    stored, placement = needed.fetch(0, needed.pack_map.packs[0])
    pack = needed.pack_map.packs[0]
    entries = list(decode_placement(placement, b"v" * 32, pack.digest, pack.raw_size))
    assert (stored, packs.asked, entries) == (b"stored", [1], [(3, 0, 0, 3)])


def test_entries_stay_in_order_when_a_name_far_behind_takes_the_lead(some: SpilledTree, tmp_path: Path) -> None:
    flat = ENTRY.pack(3, 0, 0, 3) + ENTRY.pack(6, 0, 3, 3)
    pack = PackRef(b"p" * 32, 1, 6, 2)
    placement = encode_placement(Placement(b"v" * 32, pack.digest, flat))

    class One:
        def fetch(self, ordinal: int, pack: PackRef) -> tuple[bytes, bytes]:
            return b"", placement

    chosen = select(some, [b"b"], None, tmp_path)
    whole = PackMap(FORMAT, b"v" * 32, b"i" * 32, (pack,))
    needed = SelectedPacks(One(), whole, chosen, lambda _: placement)
    _, made = needed.fetch(0, pack)
    assert list(decode_placement(made, b"v" * 32, pack.digest, 6)) == [(3, 0, 3, 3), (4, 0, 0, 3)]


def test_a_placement_of_an_inode_that_is_none_is_not_believed(some: SpilledTree, tmp_path: Path) -> None:
    pack = PackRef(b"p" * 32, 1, 6, 1)
    placement = encode_placement(Placement(b"v" * 32, pack.digest, ENTRY.pack(999, 0, 0, 3)))
    chosen = select(some, [b"b"], None, tmp_path)
    needed = SelectedPacks(Packs(), PackMap(FORMAT, b"v" * 32, b"i" * 32, (pack,)), chosen, lambda _: placement)
    assert needed.pack_map.packs == ()


@st.composite
def trees(draw: st.DrawFn) -> list[Inode]:
    """A valid tree of folders, files and names of files."""
    names = st.sampled_from([b"a", b"a-", b"b", b"c"])
    paths = draw(st.sets(st.lists(names, min_size=1, max_size=3).map(b"/".join), max_size=10))
    folders = {path.rsplit(b"/", depth)[0] for path in paths for depth in range(1, path.count(b"/") + 1)}
    made = [directory(1, b"")]
    files: list[Inode] = []
    for number, path in enumerate(sorted(paths | folders, key=order_key), start=2):
        is_link = draw(st.booleans())
        if path in folders:
            made.append(directory(number, path))
        elif files and is_link:
            made.append(link(number, path, draw(st.sampled_from(files)).number))
        else:
            files.append(file_inode(number, path, path))
            made.append(files[-1])
    return made


@given(trees(), st.data())
def test_any_part_of_any_tree_is_a_valid_tree_with_the_content_it_had(inodes: list[Inode], data: st.DataObject) -> None:
    paths = data.draw(st.lists(st.sampled_from([inode.path for inode in inodes]), min_size=1, max_size=3))
    with tempfile.TemporaryDirectory() as folder:
        whole = spilled_of(inodes, Path(folder))
        chosen = select(whole, paths, data.draw(st.sampled_from([None, OWNER])), Path(folder))  # the checker agrees
        found, was = records(chosen.spilled), records(whole)
        wanted = {
            path
            for path in was
            if any(not asked or f"{path.decode()}/".startswith(f"{asked.decode()}/") for asked in paths)
            or any(asked.startswith(path + b"/") or not path for asked in paths)
        }
        assert set(found) == wanted
        for path, inode in found.items():
            assert _chunks(chosen.spilled, inode) == _chunks(whole, was[path])
        _require_same_names(chosen, whole, found, was)


def _chunks(spilled: SpilledTree, inode: Inode) -> bytes:
    return (spilled.table.inode(inode.leader) if inode.leader else inode).chunks


def _require_same_names(
    chosen: Selection, whole: SpilledTree, found: dict[bytes, Inode], was: dict[bytes, Inode]
) -> None:
    """Two paths are one file in the part exactly where they were in the whole, and `numbers` says where it went."""
    groups: dict[int, set[int]] = {}
    for path, inode in found.items():
        old = was[path]
        groups.setdefault(old.leader or old.number, set()).add(inode.leader or inode.number)
    assert all(len(numbers) == 1 for numbers in groups.values())
    assert len({min(numbers) for numbers in groups.values()}) == len(groups)
    wanted = array("I", bytes(4 * (whole.table.count + 1)))
    for old_number, numbers in groups.items():
        wanted[old_number] = min(numbers)
    assert chosen.numbers == wanted
