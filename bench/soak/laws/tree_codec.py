"""Hostile bytes in place of every part of a version: refused by IntegrityError, or taken for exactly what they are.

Each part comes under the digest of its hostile bytes, as from somebody who has the signing key.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from cloner_core.errors import IntegrityError
from cloner_core.image.checker import TreeChecker
from cloner_core.image.compression import compress, decompress
from cloner_core.image.derive import derive_placements
from cloner_core.image.digest import digest, version_digest
from cloner_core.image.inode import Inode, Kind, decode_inode, encode_inode
from cloner_core.image.pack import iter_entries
from cloner_core.image.packmap import MapBuilder, decode_map, encode_map
from cloner_core.image.placement import Placement, decode_placement, encode_placement
from cloner_core.image.spans import encode_holes
from cloner_core.image.tree import Filesystem, SegmentRef, decode_root, encode_root, iter_segment
from soak.law import Case, Figures, Law, require
from store_images import Image, make_image, some_contents

_FILESYSTEMS = (Filesystem(b"", "root"), Filesystem(b"efi", "esp"))
# What decoders stumble over: MessagePack's longest arrays, maps, strings and numbers, nesting, and the ends of ranges.
_TREATS = (
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xcf" + b"\xff" * 8,
    b"\xd3\x80" + bytes(7),
    b"\x91" * 2000,
    b"\xc0",
    b"\xcb\x7f\xf8" + bytes(6),
    b"\xa2\xff\xfe",
    b"..",
    b"/",
    b"\0",
    b"\xff" * 4,
)


class _Parts:
    """One valid version, part by part, and how each part is read."""

    def __init__(self, image: Image) -> None:
        self.version = image.version
        self.pack = image.packs[0]
        builder = MapBuilder()
        for pack in image.packs:
            builder.add_pack(pack.digest, len(pack.stored), pack.raw_size, pack.entries)
        root = decode_root(image.draft.root, image.version)
        placements = derive_placements(root, (segment.raw for segment in image.segments), builder)
        pack_map, _ = builder.finish(image.version)
        self.first = pack_map.packs[0]
        placement = encode_placement(Placement(image.version, self.first.digest, next(iter(placements))))
        inodes = list(_every_kind())
        segment = b"".join(encode_inode(inode) for inode in inodes)
        self.count = len(inodes)
        content = bytes(5000) + segment
        self.frame_bytes = len(content)
        self.readers: dict[str, tuple[bytes, Callable[[bytes], None]]] = {
            "root": (image.draft.root, self._read_root),
            "record": (encode_inode(inodes[-1]), self._read_record),
            "segment": (segment, self._read_segment),
            "map": (encode_map(pack_map), self._read_map),
            "pack index": (self.pack.entries, self._read_entries),
            "placement": (placement, self._read_placement),
            "frame": (compress(content), self._read_frame),
        }

    def _read_root(self, data: bytes) -> None:
        require(encode_root(decode_root(data, version_digest(data))) == data, "a root has two encodings")

    def _read_record(self, data: bytes) -> None:
        require(encode_inode(decode_inode(data)) == data, "a record has two encodings")

    def _read_segment(self, data: bytes) -> None:
        ref = SegmentRef(digest(data), len(data), 1, self.count, 0)
        checker = TreeChecker(_FILESYSTEMS)
        paths: set[bytes] = set()
        for inode, _ in iter_segment(data, ref):
            checker.add(inode)
            parent, _, name = inode.path.rpartition(b"/")
            require(inode.number == 1 or name not in (b"", b".", b".."), f"{inode.path!r} is taken for a path")
            require(inode.number == 1 or not parent or parent in paths, f"{inode.path!r} has no parent")
            paths.add(inode.path)

    def _read_map(self, data: bytes) -> None:
        require(encode_map(decode_map(data)) == data, "a pack map has two encodings")

    def _read_entries(self, data: bytes) -> None:
        for _, offset, length in iter_entries(data, self.pack.raw_size):
            require(offset + length <= self.pack.raw_size, "a chunk leaves its pack")

    def _read_placement(self, data: bytes) -> None:
        placement = decode_placement(data, self.version, self.first.digest, self.first.raw_size)
        for _, _, offset, length in placement:
            require(offset + length <= self.first.raw_size, "a placement leaves its pack")

    def _read_frame(self, data: bytes) -> None:
        require(len(decompress(data, self.frame_bytes, "a frame")) == self.frame_bytes, "a frame gives another size")


def _every_kind() -> Iterator[Inode]:
    yield Inode(1, Kind.DIRECTORY, b"", 0o755)
    yield Inode(2, Kind.DIRECTORY, b"dir", 0o1777, 5, 6, -7)
    yield Inode(3, Kind.FILE, b"dir/file", 0o644, size=5, chunks=digest(b"five!"))
    yield Inode(4, Kind.LINK, b"dir/link", leader=3)
    yield Inode(5, Kind.DIRECTORY, b"efi", 0o755)
    yield Inode(6, Kind.FILE, b"efi/loader", size=1, chunks=digest(b"x"))
    yield Inode(7, Kind.FIFO, b"fifo", 0o600)
    yield Inode(8, Kind.BLOCK, b"sda", 0o660, device=(8, 1))
    yield Inode(9, Kind.SYMLINK, b"symlink", 0o777, target=b"/etc")
    holes = encode_holes([(4096, 4096), (3 << 20, 8192)])
    sparse = Inode(10, Kind.FILE, b"zz", 0o600, size=4 << 20, holes=holes, xattrs=((b"user.a", b"b"),), flags=0x10)
    yield msgspec.structs.replace(sparse, chunks=bytes(32) * len(sparse.spans()))


def _spoil(data: bytes, chance: random.Random) -> bytes:
    """Return `data` after one to four changes."""
    spoilt = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at, length = chance.randrange(len(spoilt) + 1), chance.choice((1, 1, 2, 8, 100))
        match chance.randrange(6):
            case 0 if at < len(spoilt):
                spoilt[at] ^= 1 << chance.randrange(8)
            case 1:
                spoilt[at : at + length] = chance.randbytes(length)
            case 2:
                treat = chance.choice(_TREATS)
                spoilt[at : at + chance.choice((0, len(treat)))] = treat
            case 3:
                del spoilt[at : at + length]
            case 4:
                spoilt[at:at] = spoilt[at : at + length]
            case _:
                del spoilt[at:]
    return bytes(spoilt)


@contextmanager
def open_tree_codec(work: Path) -> Iterator[Case]:
    """A case spoils one part of one version."""
    parts = _Parts(make_image(some_contents()))

    def case(seed: int) -> Figures:
        chance = random.Random(seed)
        name = chance.choice(list(parts.readers))
        data, read = parts.readers[name]
        spoilt = _spoil(data, chance)
        try:
            read(spoilt)
        except IntegrityError:
            return {"part": name, "answer": "refused"}
        return {"part": name, "answer": "the same" if spoilt == data else "another, well-formed"}

    for data, read in parts.readers.values():
        read(data)
    yield case


LAW = Law(
    "tree-codec", "hostile bytes are refused with one kind of error, or have one meaning", 10_000, open_tree_codec
)
