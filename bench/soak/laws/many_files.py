"""An image of very many small files, made record by record: no filesystem has to hold them before they are restored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from blake3 import blake3

from cloner_core.image.checker import TreeChecker
from cloner_core.image.compression import compress
from cloner_core.image.digest import digest
from cloner_core.image.inode import Inode, Kind, encode_inode
from cloner_core.image.pack import PackWriter, RawPack, compress_pack
from cloner_core.image.tree import Facts, Filesystem, Segment, SegmentRef, SegmentWriter, TreeRoot, encode_root
from cloner_core.image.version import Draft, PackOffer
from cloner_server.store.local import LocalStore

_IN_DIRECTORY = 1000


@dataclass(frozen=True, slots=True)
class Many:
    """A published image of that many files."""

    store: LocalStore
    version: bytes
    files: int


def path_of(file: int) -> bytes:
    """Return the path of a file by its number, from 0."""
    return b"%04d/%03d" % divmod(file, _IN_DIRECTORY)


def content_of(file: int) -> bytes:
    """Return 1 to 1500 bytes that no other file has, half of them incompressible."""
    size = file * 7919 % 1500 + 1
    half = blake3(b"%d" % file).digest(length=size // 2 + 8)
    return (half + b"%d is one of very many small files\n" % file * 30)[:size]


def put_many(store: LocalStore, files: int) -> Many:
    """Publish an image of `files` files."""
    writer, packer = SegmentWriter(), PackWriter()
    checker = TreeChecker((Filesystem(b"", "root"),))
    refs: list[SegmentRef] = []
    offers: list[PackOffer] = []

    def keep_segment(segment: Segment | None) -> None:
        if segment is not None:
            store.put_segment(segment.ref.digest, len(segment.raw), compress(segment.raw))
            refs.append(segment.ref)

    def keep_pack(raw: RawPack | None) -> None:
        if raw is not None:
            pack = compress_pack(raw)
            store.put_pack(pack.digest, pack.stored)
            offers.append(PackOffer(pack.digest, len(pack.stored), pack.raw_size, pack.entries))

    inodes = 0
    for inode, content in _inodes(files):
        inodes = inode.number
        checker.add(inode)
        if content:
            keep_pack(packer.add(inode.chunks, content))
        keep_segment(writer.add(encode_inode(inode), len(content)))
    keep_pack(packer.close())
    keep_segment(writer.close())
    data_bytes = sum(ref.data_bytes for ref in refs)
    root = TreeRoot(1, Facts(), checker.counted(), inodes, data_bytes, tuple(refs))
    draft = Draft("many", encode_root(root), tuple(offers))
    return Many(store, bytes.fromhex(store.publish(draft, is_trusted=True).version), files)


def _inodes(files: int) -> Iterator[tuple[Inode, bytes]]:
    number = 1
    yield Inode(number, Kind.DIRECTORY, b"", 0o755), b""
    for file in range(files):
        if file % _IN_DIRECTORY == 0:
            number += 1
            yield Inode(number, Kind.DIRECTORY, path_of(file)[:4], 0o755, mtime_ns=file), b""
        number += 1
        content = content_of(file)
        owner = 1000 + file % 7
        yield (
            Inode(number, Kind.FILE, path_of(file), 0o640, owner, owner, file, len(content), chunks=digest(content)),
            content,
        )
