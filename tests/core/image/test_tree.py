"""Records make one tree in one way, or are refused."""

from __future__ import annotations

from dataclasses import dataclass

import msgpack  # type: ignore[import-untyped]
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloner_core.errors import IntegrityError
from cloner_core.image.checker import check_cut
from cloner_core.image.digest import version_digest
from cloner_core.image.inode import Inode, Kind, encode_inode
from cloner_core.image.limits import SEGMENT_INODES, SEGMENT_RAW_BYTES
from cloner_core.image.tree import (
    Filesystem,
    SegmentRef,
    SegmentWriter,
    decode_root,
    encode_root,
    iter_segment,
    record_ends,
)
from core.image.trees import check, file_inode, make_tree, names, root_inode

ROOT = root_inode()
ESP = (Filesystem(b"", "root"), Filesystem(b"efi", "esp"))


def directory(number: int, path: bytes) -> Inode:
    return Inode(number, Kind.DIRECTORY, path, 0o755)


@given(st.lists(st.lists(names, min_size=1, max_size=4), max_size=20))
def test_any_set_of_paths_sorted_by_component_is_a_tree(paths: list[list[bytes]]) -> None:
    every = {tuple(path[:depth]) for path in paths for depth in range(len(path) + 1)} | {()}
    inodes = [directory(number, b"/".join(path)) for number, path in enumerate(sorted(every), start=1)]
    checker = check(inodes)
    assert checker.counted()[0].inodes == len(inodes)
    root, segments = make_tree(inodes)
    assert [inode for segment in segments for inode, _ in iter_segment(segment.raw, segment.ref)] == inodes
    checker.finish(msgspec.structs.replace(root, filesystems=checker.counted()))


@dataclass(frozen=True)
class Wrong:
    name: str
    inodes: list[Inode]


WRONG = [
    Wrong("the root is a file", [file_inode(1, b"")]),
    Wrong("no root", [directory(1, b"a")]),
    Wrong("two roots", [ROOT, directory(2, b"")]),
    Wrong("a number left out", [ROOT, directory(3, b"a")]),
    Wrong("no parent", [ROOT, file_inode(2, b"a/b")]),
    Wrong("parent is a file", [ROOT, file_inode(2, b"a"), file_inode(3, b"a/b")]),
    Wrong("parent is a link", [ROOT, Inode(2, Kind.SYMLINK, b"a", 0o777, target=b"/"), file_inode(3, b"a/b")]),
    Wrong("parent comes later", [ROOT, file_inode(2, b"b/c"), directory(3, b"b")]),
    Wrong("not in order", [ROOT, directory(2, b"b"), directory(3, b"a")]),
    Wrong("a name twice", [ROOT, directory(2, b"a"), directory(3, b"a")]),
    Wrong("back in a directory left", [ROOT, directory(2, b"a"), directory(3, b"b"), file_inode(4, b"a/c")]),
    Wrong("dots", [ROOT, directory(2, b"..")]),
    Wrong("a dot", [ROOT, directory(2, b".")]),
    Wrong("dots beneath", [ROOT, directory(2, b"a"), file_inode(3, b"a/..")]),
    Wrong("an empty name", [ROOT, directory(2, b"a"), file_inode(3, b"a/")]),
    Wrong("a name too long", [ROOT, file_inode(2, b"a" * 256)]),
    Wrong("leader later", [ROOT, Inode(2, Kind.LINK, b"a", leader=3), file_inode(3, b"b")]),
    Wrong("leader itself", [ROOT, Inode(2, Kind.LINK, b"a", leader=2)]),
    Wrong("leader none", [ROOT, Inode(2, Kind.LINK, b"a", leader=0)]),
    Wrong("leader a directory", [ROOT, Inode(2, Kind.LINK, b"a", leader=1)]),
    Wrong(
        "leader a link",
        [ROOT, file_inode(2, b"a"), Inode(3, Kind.LINK, b"b", leader=2), Inode(4, Kind.LINK, b"c", leader=3)],
    ),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_records_that_are_no_tree_are_refused(wrong: Wrong) -> None:
    with pytest.raises(IntegrityError):
        check(wrong.inodes)


@pytest.mark.parametrize(
    "inode",
    [
        Inode(3, Kind.SYMLINK, b"efi/l", 0o777, target=b"x"),
        Inode(3, Kind.FILE, b"efi/f", 0o644),
        Inode(3, Kind.FILE, b"efi/f", mtime_ns=1),
        Inode(3, Kind.FILE, b"efi/f", xattrs=((b"user.a", b""),)),
        Inode(3, Kind.LINK, b"efi/f", leader=2),
    ],
    ids=lambda inode: inode.path.decode() + str(inode.kind),
)
def test_the_esp_keeps_paths_and_bytes_only(inode: Inode) -> None:
    check([ROOT, directory(2, b"efi"), Inode(3, Kind.FILE, b"efi/f")], ESP)
    with pytest.raises(IntegrityError):
        check([ROOT, directory(2, b"efi"), inode], ESP)


def test_a_link_never_crosses_filesystems() -> None:
    two = (Filesystem(b"", "root"), Filesystem(b"home", "data"))
    leader, link = file_inode(2, b"a"), Inode(4, Kind.LINK, b"home/b", leader=2)
    check([ROOT, leader, directory(3, b"home"), link])
    with pytest.raises(IntegrityError, match="leader"):
        check([ROOT, leader, directory(3, b"home"), link], two)


def test_totals_are_counted_for_each_filesystem() -> None:
    inodes = [ROOT, directory(2, b"efi"), Inode(3, Kind.FILE, b"efi/f"), file_inode(4, b"z", b"x" * 5000)]
    counted = check(inodes, ESP).counted()
    assert [(fs.inodes, fs.data_bytes, fs.allocated_bytes) for fs in counted] == [(2, 5000, 12288), (2, 0, 4096)]


def test_a_segment_is_closed_by_count_and_by_size_and_could_not_be_cut_otherwise() -> None:
    writer, refs = SegmentWriter(), []
    small = [encode_inode(file_inode(number, b"%08d" % number)) for number in range(1, SEGMENT_INODES + 2)]
    for record in small:
        closed = writer.add(record, 0)
        refs += [closed.ref] if closed else []
    assert [ref.count for ref in refs] == [SEGMENT_INODES]
    check_cut(refs[0], len(small[-1]))
    big = b"\x00" * (SEGMENT_RAW_BYTES - len(small[-1]) + 1)
    closed = writer.add(big, 0)
    assert closed is not None
    assert closed.ref.first == SEGMENT_INODES + 1
    check_cut(closed.ref, len(big))
    with pytest.raises(IntegrityError):
        check_cut(closed.ref, len(big) - 1)


def test_a_segment_is_a_plain_stream_of_messagepack_for_others() -> None:
    inodes = [ROOT, directory(2, b"a"), file_inode(3, b"a/b", b"content")]
    _, segments = make_tree(inodes)
    unpacker = msgpack.Unpacker()
    unpacker.feed(segments[0].raw)
    assert [values[2] for values in unpacker] == [b"", b"a", b"a/b"]


@given(st.binary(max_size=300), st.integers(1, 20))
def test_hostile_segments_are_refused_with_a_typed_error(raw: bytes, count: int) -> None:
    try:
        ends = record_ends(raw, count)
    except IntegrityError:
        return
    assert len(ends) == count
    assert ends[-1] == len(raw)


@given(st.integers(0, 1 << 16), st.integers(1, 255))
def test_a_flipped_byte_in_a_segment_is_found_before_a_record_is_given(position: int, mask: int) -> None:
    _, segments = make_tree([ROOT, directory(2, b"a"), file_inode(3, b"a/b", b"content")])
    raw = bytearray(segments[0].raw)
    raw[position % len(raw)] ^= mask
    with pytest.raises(IntegrityError, match="damaged"):
        next(iter_segment(bytes(raw), segments[0].ref))


def test_deeply_nested_bytes_are_refused() -> None:
    with pytest.raises(IntegrityError):
        record_ends(b"\x91" * 100_000, 1)


@example(b"\x81\xa1\x80")  # text that is not UTF-8, which msgspec reports by another error
@given(st.binary(max_size=200))
def test_hostile_roots_are_refused_even_under_their_own_digest(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        decode_root(data, version_digest(data))


def test_a_root_with_wrong_sums_order_or_format_is_refused() -> None:
    root, _ = make_tree([ROOT, directory(2, b"a")])
    assert decode_root(encode_root(root), version_digest(encode_root(root))) == root
    ref = root.segments[0]
    shifted = SegmentRef(ref.digest, ref.raw_size, 2, ref.count, 0)
    for wrong in (
        msgspec.structs.replace(root, format=2),
        msgspec.structs.replace(root, inodes=3),
        msgspec.structs.replace(root, data_bytes=1),
        msgspec.structs.replace(root, segments=(shifted,)),
        msgspec.structs.replace(root, filesystems=(Filesystem(b"a", "root"),)),
        msgspec.structs.replace(root, filesystems=(Filesystem(b"", "root"), Filesystem(b"", "root"))),
    ):
        data = encode_root(wrong)
        with pytest.raises(IntegrityError):
            decode_root(data, version_digest(data))
    data = encode_root(root)
    with pytest.raises(IntegrityError, match="digest"):
        decode_root(data, bytes(32))
    with pytest.raises(IntegrityError):
        decode_root(data + b"\x00", version_digest(data + b"\x00"))


def test_a_tree_that_ends_early_is_refused() -> None:
    root, _ = make_tree([ROOT, directory(2, b"a")])
    with pytest.raises(IntegrityError):
        check([ROOT]).finish(root)


def test_the_digest_of_a_known_tree_never_changes() -> None:
    content = bytes(range(256)) * 4097  # a little above 1 MiB
    xattrs = ((b"user.k", b"v"),)
    inodes = [ROOT, directory(2, b"etc"), replace_xattrs(file_inode(3, b"etc/f", content), xattrs)]
    root, _ = make_tree(inodes, check(inodes).counted())
    assert version_digest(encode_root(root)).hex() == GOLDEN


def replace_xattrs(inode: Inode, xattrs: tuple[tuple[bytes, bytes], ...]) -> Inode:
    return msgspec.structs.replace(inode, xattrs=xattrs)


GOLDEN = "a12aab3162f1ee9971cd1564551f69e4f79f47e6c3f64339f4e0d8ad81f1e74f"
