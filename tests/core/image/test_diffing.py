"""Two trees side by side: every path once, told as what became of it, whatever the numbers of the inodes are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.admin.differences import Difference, DirectorySize, PathChange
from cloner_core.image.diffing import MOST_DIRECTORIES, compare_trees, order_key, pair_trees
from cloner_core.image.inode import Inode, Kind
from cloner_core.image.spans import encode_holes
from core.image.trees import check, file_inode, names

DIRECTORY, LINK, SYMLINK = Kind.DIRECTORY, Kind.LINK, Kind.SYMLINK


def tree(*entries: Inode | tuple[bytes, bytes], links: Sequence[tuple[bytes, bytes]] = ()) -> list[Inode]:
    """Return a valid tree of records and files (path, content), the folders they need, and links (path, leader)."""
    given = {entry.path: entry for entry in entries if isinstance(entry, Inode)}
    contents = {entry[0]: entry[1] for entry in entries if not isinstance(entry, Inode)}
    paths = {*given, *contents, *(path for path, _ in links)}
    paths |= {path.rsplit(b"/", depth)[0] for path in paths for depth in range(1, path.count(b"/") + 1)}
    numbers = {path: number for number, path in enumerate(sorted({b"", *paths}, key=order_key), start=1)}
    leaders = dict(links)
    made = []
    for path, number in numbers.items():
        if path in contents:
            made.append(file_inode(number, path, contents[path]))
        elif path in leaders:
            made.append(Inode(number, LINK, path, leader=numbers[leaders[path]]))
        else:
            made.append(msgspec.structs.replace(given.get(path, Inode(1, DIRECTORY, path, 0o755)), number=number))
    check(made)
    return made


def changes(before: Iterable[Inode], after: Iterable[Inode]) -> dict[str, str]:
    """Return path beneath /etc → change."""
    return {each.path: each.change for each in compare_trees(before, after).etc}


contents = st.dictionaries(st.lists(names, min_size=1, max_size=3).map(b"/".join), st.binary(max_size=3), max_size=12)


def without_conflicts(files: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Drop files that another one needs as a folder."""
    return {path: data for path, data in files.items() if not any(other.startswith(path + b"/") for other in files)}


@given(contents, contents)
def test_every_path_of_either_tree_comes_once_in_order(one: dict[bytes, bytes], two: dict[bytes, bytes]) -> None:
    before, after = tree(*without_conflicts(one).items()), tree(*without_conflicts(two).items())
    pairs = list(pair_trees(before, after))
    paths = [pair.path for pair in pairs]
    assert paths == sorted({inode.path for inode in (*before, *after)}, key=order_key)
    old, new = {inode.path: inode for inode in before}, {inode.path: inode for inode in after}
    assert all((pair.before, pair.after) == (old.get(pair.path), new.get(pair.path)) for pair in pairs)


@given(contents, contents)
def test_the_way_back_is_the_way_with_added_and_removed_exchanged(
    one: dict[bytes, bytes], two: dict[bytes, bytes]
) -> None:
    before, after = tree(*without_conflicts(one).items()), tree(*without_conflicts(two).items())
    there, back = compare_trees(before, after), compare_trees(after, before)
    assert (there.counts.added, there.counts.removed) == (back.counts.removed, back.counts.added)
    assert (there.counts.changed, there.counts.same) == (back.counts.changed, back.counts.same)
    assert sum(msgspec.structs.astuple(there.counts)) == len({inode.path for inode in (*before, *after)})
    assert {(each.path, each.before_bytes, each.after_bytes) for each in there.directories} == {
        (each.path, each.after_bytes, each.before_bytes) for each in back.directories
    }


@given(contents)
def test_a_tree_differs_in_nothing_from_itself(files: dict[bytes, bytes]) -> None:
    whole = tree(*without_conflicts(files).items())
    told = compare_trees(whole, whole)
    assert told.counts.same == len(whole)
    assert (told.etc, told.kernels, told.directories) == ((), (), ())


def test_a_file_in_front_moves_every_number_and_changes_nothing_else() -> None:
    rest = ((b"etc/b", b"1"), (b"etc/c", b"2"))
    links = ((b"etc/d", b"etc/b"),)
    told = compare_trees(tree(*rest, links=links), tree((b"etc/a", b""), *rest, links=links))
    assert [each.path for each in told.etc] == ["/etc/a"]
    assert (told.counts.added, told.counts.changed) == (1, 0)


def test_a_link_changes_with_what_it_leads_to_and_where_it_leads() -> None:
    before = tree((b"etc/a", b"1"), (b"etc/b", b"2"), links=[(b"etc/x", b"etc/a"), (b"etc/y", b"etc/b")])
    after = tree((b"etc/a", b"3"), (b"etc/b", b"2"), links=[(b"etc/x", b"etc/a"), (b"etc/y", b"etc/a")])
    assert changes(before, after) == {"/etc/a": "changed", "/etc/x": "changed", "/etc/y": "changed"}
    assert changes(before, before) == {}


def test_a_new_name_in_front_that_takes_the_lead_is_told() -> None:
    before = tree((b"etc/m", b"1"), links=[(b"etc/n", b"etc/m")])
    after = tree((b"etc/a", b"1"), links=[(b"etc/m", b"etc/a"), (b"etc/n", b"etc/a")])
    assert changes(before, after) == {"/etc/a": "added", "/etc/m": "changed", "/etc/n": "changed"}


BASE = file_inode(1, b"etc/f", b"x")


@pytest.mark.parametrize(
    ("values", "change", "detail"),
    [
        ({"mode": 0o600}, "metadata", "mode 0644 → 0600"),
        ({"uid": 5}, "metadata", "owner 0:0 → 5:0"),
        ({"xattrs": ((b"user.a", b"1"),)}, "metadata", "attributes user.a"),
        ({"flags": 0x10}, "metadata", "flags 0x0 → 0x10"),
        ({"mode": 0o600, "gid": 7}, "metadata", "mode 0644 → 0600, owner 0:0 → 0:7"),
        ({"kind": SYMLINK, "mode": 0o777, "size": 0, "chunks": b"", "target": b"g"}, "changed", "file → symbolic link"),
        ({"size": 4096, "holes": encode_holes([(0, 4095)])}, "changed", "1 → 4096 bytes"),
    ],
)
def test_each_way_to_differ_has_its_words(values: dict[str, object], change: str, detail: str) -> None:
    told = compare_trees(tree(BASE), tree(msgspec.structs.replace(BASE, **values)))
    assert told.etc == (PathChange("/etc/f", change, detail),)


def test_another_time_alone_is_counted_and_not_listed() -> None:
    told = compare_trees(tree(BASE), tree(msgspec.structs.replace(BASE, mtime_ns=5)))
    assert (told.counts.times, told.etc) == (1, ())


def test_a_link_is_told_with_both_targets_and_other_bytes_by_their_number() -> None:
    link = Inode(1, SYMLINK, b"etc/l", 0o777, target=b"a")
    old, new = tree(link, (b"etc/f", b"1")), tree(msgspec.structs.replace(link, target=b"\xff"), (b"etc/f", b"2"))
    assert [each.detail for each in compare_trees(old, new).etc] == ["other 1 bytes", "to a → \\xff"]


def test_a_path_that_is_no_text_is_told_escaped() -> None:
    assert compare_trees(tree(), tree((b"etc/\xff\n", b""))).etc[1].path == "/etc/\\xff\n"


def test_only_so_many_of_etc_are_listed_and_the_rest_is_counted() -> None:
    told = compare_trees(tree(), tree(*((b"etc/%d" % number, b"") for number in range(5))), most_etc=3)
    assert (len(told.etc), told.etc_more) == (3, 3)


def test_directories_of_two_levels_are_told_by_how_much_they_grew() -> None:
    before = tree((b"usr/lib/a/deep", b"1" * 100), (b"usr/bin/b", b"22"), (b"var/c", b"3"), (b"top", b"4444"))
    after = tree((b"usr/lib/a/deep", b"1" * 10), (b"usr/bin/b", b"2222"), (b"var/c", b"3"))
    assert compare_trees(before, after).directories == (
        DirectorySize("/usr/lib", 100, 10),
        DirectorySize("/usr", 102, 14),
        DirectorySize("/usr/bin", 2, 4),
    )


def test_only_the_greatest_changes_of_size_are_told() -> None:
    after = tree(*((b"%d/f" % number, b"x" * number) for number in range(1, MOST_DIRECTORIES + 10)))
    told = compare_trees(tree(), after).directories
    assert [each.after_bytes for each in told] == list(range(MOST_DIRECTORIES + 9, 9, -1))


def test_kernels_are_told_by_release_with_what_there_is_of_each() -> None:
    before = tree(
        (b"boot/vmlinuz-6.1.0-1", b"old"),
        (b"usr/lib/modules/6.1.0-1/kernel/a.ko", b"1"),
        (b"boot/vmlinuz-6.1.0-2", b"same name"),
        (b"usr/lib/modules/6.1.0-2/a.ko", b"1"),
        (b"usr/lib/modules/6.1.0-2/b.ko", b"1"),
    )
    after = tree(
        (b"boot/vmlinuz-6.1.0-2", b"another build"),
        (b"usr/lib/modules/6.1.0-2/a.ko", b"2"),
        (b"usr/lib/modules/6.1.0-2/b.ko", b"1"),
        (b"lib/modules/6.1.0-3/a.ko", b"1"),
    )
    assert compare_trees(before, after).kernels == (
        Difference("6.1.0-1", "kernel, modules", ""),
        Difference("6.1.0-2", "kernel, modules", "kernel (another build), modules (1 files differ)"),
        Difference("6.1.0-3", "", "modules"),
    )


def test_files_that_say_more_are_told_with_their_records() -> None:
    told = compare_trees(
        tree((b"var/lib/dpkg/status", b"a"), (b"etc/os-release", b"b")),
        tree(
            Inode(1, SYMLINK, b"etc/os-release", 0o777, target=b"../usr/lib/os-release"),
            (b"usr/lib/os-release", b"c"),
            (b"var/lib/dpkg/status.d/tzdata", b"d"),
            (b"var/lib/dpkg/status.d/tzdata.md5sums", b"e"),
            (b"var/lib/rpm/rpmdb.sqlite", b"f"),
        ),
    )
    assert set(told.before) == {b"var/lib/dpkg/status", b"etc/os-release"}
    assert set(told.after) == {b"usr/lib/os-release", b"var/lib/dpkg/status.d/tzdata", b"var/lib/rpm/rpmdb.sqlite"}
