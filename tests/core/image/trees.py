"""Trees for tests: a builder by hand and hypothesis strategies."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from cloner_core.image.checker import TreeChecker
from cloner_core.image.digest import digest
from cloner_core.image.inode import FLAGS_KEPT, Inode, Kind, encode_inode
from cloner_core.image.spans import Spans, encode_holes
from cloner_core.image.tree import Facts, Filesystem, Segment, SegmentWriter, TreeRoot

ROOT_FILESYSTEM = (Filesystem(b"", "root"),)


def make_tree(
    inodes: Sequence[Inode], filesystems: tuple[Filesystem, ...] = ROOT_FILESYSTEM
) -> tuple[TreeRoot, list[Segment]]:
    """Return the root and segments of these inodes, laws unchecked except for the totals."""
    writer, segments = SegmentWriter(), []
    for inode in inodes:
        closed = writer.add(encode_inode(inode), inode.spans().data_bytes)
        segments += [closed] if closed else []
    last = writer.close()
    segments += [last] if last else []
    refs = tuple(segment.ref for segment in segments)
    root = TreeRoot(1, Facts(), filesystems, len(inodes), sum(ref.data_bytes for ref in refs), refs)
    return root, segments


def root_inode() -> Inode:
    return Inode(1, Kind.DIRECTORY, b"", 0o755)


def file_inode(number: int, path: bytes, content: bytes = b"") -> Inode:
    """Return a file without holes; its chunks are those of `content`."""
    chunks = b"".join(digest(content[offset : offset + length]) for offset, length in Spans(len(content)))
    return Inode(number, Kind.FILE, path, 0o644, size=len(content), chunks=chunks)


def check(inodes: Sequence[Inode], filesystems: tuple[Filesystem, ...] = ROOT_FILESYSTEM) -> TreeChecker:
    checker = TreeChecker(filesystems)
    for inode in inodes:
        checker.add(inode)
    return checker


names = st.binary(min_size=1, max_size=8).filter(lambda name: name not in (b".", b"..") and not {0, 47} & set(name))
ids = st.integers(0, (1 << 32) - 2)


@st.composite
def inodes(draw: st.DrawFn, number: int | None = None, path: bytes | None = None) -> Inode:
    """One valid record of any kind but a link."""
    kind = draw(st.sampled_from([kind for kind in Kind if kind is not Kind.LINK]))
    size, holes = 0, b""
    if kind is Kind.FILE:
        cuts = sorted(draw(st.sets(st.integers(0, 5 << 20), max_size=9)))
        size = cuts.pop() if cuts else 0
        pairs = zip(cuts[::2], cuts[1::2], strict=False)
        holes = encode_holes((start, end - start) for start, end in pairs)
    count = len(Spans(size, holes))
    device = (draw(st.integers(0, 4095)), draw(st.integers(0, (1 << 20) - 1)))
    xattrs = draw(st.dictionaries(names, st.binary(max_size=20), max_size=3))
    return Inode(
        number or draw(st.integers(2, 1000)),
        kind,
        draw(names) if path is None else path,
        0o777 if kind is Kind.SYMLINK else draw(st.integers(0, 0o7777)),
        draw(ids),
        draw(ids),
        draw(st.integers(-(1 << 63), (1 << 63) - 1)),
        size,
        device if kind in (Kind.CHARACTER, Kind.BLOCK) else (0, 0),
        draw(names) if kind is Kind.SYMLINK else b"",
        0,
        tuple(sorted(xattrs.items())),
        draw(st.integers(0, FLAGS_KEPT)) & FLAGS_KEPT if kind in (Kind.FILE, Kind.DIRECTORY) else 0,
        holes,
        bytes(32 * count),
    )
