"""Small captured trees for the tests of the store, made without a filesystem."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloner_core.image.checker import TreeChecker
from cloner_core.image.compression import compress, decompress
from cloner_core.image.digest import digest, version_digest
from cloner_core.image.inode import Inode, Kind, encode_inode
from cloner_core.image.pack import Pack, PackWriter, compress_pack, decode_pack
from cloner_core.image.placement import decode_placement
from cloner_core.image.spans import Spans
from cloner_core.image.tree import (
    Facts,
    Filesystem,
    Segment,
    SegmentWriter,
    TreeRoot,
    decode_root,
    encode_root,
    iter_segment,
)
from cloner_core.image.version import Draft, PackOffer, verify_map
from cloner_server.store.local import LocalStore
from cloner_server.store.protocol import Store


class Key:
    """An Ed25519 key for tests."""

    def __init__(self, seed: int = 0) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)

    @property
    def public_key(self) -> bytes:
        return self._key.public_key().public_bytes_raw()


@dataclass(frozen=True)
class Image:
    """All parts of a version, not yet in any store."""

    draft: Draft
    segments: list[Segment]
    packs: list[Pack]

    @property
    def version(self) -> bytes:
        return version_digest(self.draft.root)

    def put(self, store: Store) -> None:
        for segment in self.segments:
            store.put_segment(segment.ref.digest, len(segment.raw), compress(segment.raw))
        for pack in self.packs:
            store.put_pack(pack.digest, pack.stored)


def make_image(contents: dict[bytes, bytes], name: str = "golden", pack_every: int = 3) -> Image:
    """Return the image of files with these contents and the directories they need, a pack closed every few chunks."""
    writer, segments = SegmentWriter(), []
    checker = TreeChecker((Filesystem(b"", "root"),))
    packer, packs, known = PackWriter(), [], set()
    root = Inode(1, Kind.DIRECTORY, b"", 0o755)
    inodes = [root]
    folders = {path.rsplit(b"/", depth)[0] for path in contents for depth in range(1, path.count(b"/") + 1)}
    for number, path in enumerate(sorted({*contents, *folders}, key=lambda path: path.split(b"/")), start=2):
        if path in folders:
            inodes.append(Inode(number, Kind.DIRECTORY, path, 0o755))
            continue
        chunks, content = b"", contents[path]
        for offset, length in Spans(len(content)):
            chunk = content[offset : offset + length]
            chunks += digest(chunk)
            if digest(chunk) not in known:
                known.add(digest(chunk))
                raws = [packer.add(digest(chunk), chunk)]
                if len(known) % pack_every == 0:
                    raws.append(packer.close())
                packs += [compress_pack(raw) for raw in raws if raw]
        inodes.append(Inode(number, Kind.FILE, path, 0o644, size=len(content), chunks=chunks))
    for inode in inodes:
        checker.add(inode)
        closed = writer.add(encode_inode(inode), inode.spans().data_bytes)
        segments += [closed] if closed else []
    raw, last = packer.close(), writer.close()
    packs += [compress_pack(raw)] if raw else []
    segments += [last] if last else []
    refs = tuple(segment.ref for segment in segments)
    tree = TreeRoot(1, Facts(), checker.counted(), len(inodes), sum(ref.data_bytes for ref in refs), refs)
    offers = tuple(PackOffer(pack.digest, len(pack.stored), pack.raw_size, pack.entries) for pack in packs)
    return Image(Draft(name, encode_root(tree), offers), segments, packs)


def some_contents(seed: int = 0, files: int = 20) -> dict[bytes, bytes]:
    source = random.Random(seed)
    contents = {b"%04d" % number: source.randbytes(source.randrange(3000)) for number in range(files)}
    contents[b"big"] = source.randbytes(1 << 20) + b"tail"
    contents[b"copy"] = contents[b"big"]
    contents[b"empty"] = b""
    return contents


BOOTABLE = {b"boot/vmlinuz-1": b"a kernel", b"usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed": b"a loader"}
"""What an image must have before a disk is emptied for it."""


def files_from(store: Store, version: bytes) -> dict[bytes, bytes]:
    """Put the files together again as a reader would who has only the documents: packs and placements."""
    root = decode_root(store.root(version), version)
    sizes: dict[int, tuple[bytes, int]] = {}
    for ref in root.segments:
        raw = decompress(store.segment_path(ref.digest).read_bytes(), ref.raw_size, "segment")
        sizes |= {inode.number: (inode.path, inode.size) for inode, _ in iter_segment(raw, ref)}
    contents = {number: bytearray(size) for number, (_, size) in sizes.items() if number > 1}
    signed = store.signed_map(version)
    name = bytes.fromhex(signed.map)
    pack_map = verify_map(store.pack_map(name), bytes.fromhex(signed.signature), version, Key().public_key)
    for ordinal, pack in enumerate(pack_map.packs):
        content = decode_pack(store.pack_path(pack.digest).read_bytes(), pack.digest, pack.raw_size)
        placement = decode_placement(store.placement(name, ordinal), version, pack.digest, pack.raw_size)
        for number, offset, start, length in placement:
            contents[number][offset : offset + length] = content[start : start + length]
    return {sizes[number][0]: bytes(content) for number, content in contents.items()}


def age(store: LocalStore, seconds: float = 1e6) -> None:
    """Make every file of a store older."""
    for path in store.files.root.rglob("*"):
        if path.is_file():
            old = path.stat().st_mtime - seconds
            os.utime(path, (old, old))


def flip(path: Path, position: int) -> None:
    """Alter one bit of a file."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
