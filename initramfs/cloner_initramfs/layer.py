"""A layer of the initramfs: a compressed cpio archive that the kernel unpacks over the layers before it.

Layers are concatenated as they are, so each is padded to 4 bytes. Must not know what a layer is for.
Source: kernel, init/initramfs.c, unpack_to_rootfs().
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from blake3 import blake3

from cloner_core import newc

if TYPE_CHECKING or sys.version_info < (3, 14):
    from backports import zstd
else:
    from compression import zstd

# Level 3: xz makes the archive a fifth smaller and the boot 3.4 s slower (docs/boot-walkthrough.md).
COMPRESSION_LEVEL = 3
ARCHIVE_NAME = "layer.cpio.zst"
FACTS_NAME = "layer.json"


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is remembered beside a built layer."""

    digest: str  # BLAKE3 of the stored bytes, 64 hex digits
    size_bytes: int
    unpacked_bytes: int  # what the files take in a tmpfs


@dataclass(frozen=True, slots=True)
class Layer:
    """One built layer on disk."""

    name: str  # base, drivers-vm, ...
    path: Path
    digest: str
    size_bytes: int
    unpacked_bytes: int


def compress(entries: Iterable[newc.Entry]) -> bytes:
    """Return the entries as one layer: a zstd frame of a newc archive, padded with zeros to 4 bytes."""
    raw = newc.pack(entries)
    stored = zstd.compress(raw, COMPRESSION_LEVEL)
    return stored + bytes(-len(stored) % 4)


def unpacked_bytes(entries: Iterable[newc.Entry], *, page_bytes: int = 4096) -> int:
    """Return what the entries take in a tmpfs: whole pages of content, and about 1 KiB for each inode."""
    return sum(-(-len(entry.data) // page_bytes) * page_bytes + 1024 for entry in entries)


def store(place: Path, entries: Sequence[newc.Entry]) -> None:
    """Write the layer and its facts into an empty directory."""
    stored = compress(entries)
    (place / ARCHIVE_NAME).write_bytes(stored)
    facts = Facts(blake3(stored).hexdigest(), len(stored), unpacked_bytes(entries))
    (place / FACTS_NAME).write_bytes(msgspec.json.encode(facts))


def load(name: str, place: Path) -> Layer:
    """Return the layer written by `store` into this directory."""
    facts = msgspec.json.decode((place / FACTS_NAME).read_bytes(), type=Facts)
    return Layer(name, place / ARCHIVE_NAME, facts.digest, facts.size_bytes, facts.unpacked_bytes)


def concatenate(layers: Sequence[Layer | bytes], target: Path) -> int:
    """Write the layers one after another into one initramfs file and return its size in bytes.

    The file appears whole or not at all, also after a power cut: who finds it there uses it unread.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".initramfs-", delete=False) as out:
        path = Path(out.name)
        try:
            for layer in layers:
                out.write(layer if isinstance(layer, bytes) else layer.path.read_bytes())
            out.flush()
            path.chmod(0o644)
            os.fsync(out.fileno())
            path.rename(target)
        except BaseException:  # the disk is full: what was written must not stay and keep it so
            path.unlink(missing_ok=True)
            raise
        size_bytes = out.tell()
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return size_bytes


def entries_of(root: Path) -> Iterator[newc.Entry]:
    """Yield the content of a directory, sorted; modes are reduced to what a root-only system needs.

    Reading stays beneath `root`: links are taken as links. Raises OSError when a file cannot be read.
    """
    for directory, names, files in os.walk(root):
        names.sort()
        for name in sorted([*names, *files]):
            path = os.path.join(directory, name)
            inside = os.fsencode(os.path.relpath(path, root))
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                yield newc.Entry(inside, stat.S_IFLNK | 0o777, os.fsencode(os.readlink(path)))
            elif stat.S_ISDIR(mode):
                yield newc.Entry(inside, stat.S_IFDIR | 0o755)
            elif stat.S_ISREG(mode):
                executable = 0o755 if mode & 0o111 else 0o644
                yield newc.Entry(inside, stat.S_IFREG | executable, Path(path).read_bytes())
