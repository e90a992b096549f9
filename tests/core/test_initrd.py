"""An initramfs is read as the kernel reads it: parts one after the other, each compressed or not, and bounded."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import struct
from collections.abc import Callable, Iterator

import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from cloner_core import newc
from cloner_core.initrd import InitrdError, read_initrd

RELEASE = "6.1.0-50-amd64"
FILES = {
    f"lib/modules/{RELEASE}/kernel/drivers/nvme/host/nvme-core.ko": b"\x7fELF" * 1000,
    f"usr/lib/modules/{RELEASE}/kernel/fs/ext4/ext4.ko.zst": b"packed",
    "lib/modules/5.10.0/kernel/fs/xfs/xfs.ko.xz": b"other kernel",
    "usr/sbin/mdadm": b"\x7fELF",
    "conf/conf.d/resume": b"RESUME=UUID=5e1f0000-901d-4000-8000-000000005a9e\n",
}
ARCHIVE = newc.pack(newc.with_parents(newc.file(path, data) for path, data in FILES.items()))
MICROCODE = newc.pack(newc.with_parents([newc.file("kernel/x86/microcode/GenuineIntel.bin", bytes(5000))]))


def lz4(data: bytes) -> bytes:
    """Return a legacy frame in which a run of one byte is a match that overlaps itself, and all else is literal."""
    blocks = b""
    for start in range(0, len(data), 8 << 20):
        piece = data[start : start + (8 << 20)]
        block, at = b"", 0
        for run in re.finditer(rb"(.)\1{99,}", piece, re.DOTALL):
            if run.end() > len(piece) - 5:  # the last bytes of a block are literals
                break
            literals, match = piece[at : run.start() + 1], len(run[0]) - 1
            block += (
                b"\xff" + _length(len(literals) - 15) + literals
                if len(literals) >= 15
                else (bytes([len(literals) << 4 | 15]) + literals)
            )
            block += b"\1\0" + _length(match - 19)
            at = run.end()
        rest = piece[at:]
        block += (bytes([len(rest) << 4]) if len(rest) < 15 else b"\xf0" + _length(len(rest) - 15)) + rest
        blocks += struct.pack("<I", len(block)) + block
    return b"\x02\x21\x4c\x18" + blocks


def _length(value: int) -> bytes:
    return b"\xff" * (value // 255) + bytes([value % 255])


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.compress,
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32),
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "bzip2": bz2.compress,
    "zstd": zstd.compress,
    "lz4": lz4,
}


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def paths(data: bytes, size: int = 1 << 16) -> set[str]:
    return read_initrd(pieces(data, size)).files


@pytest.mark.parametrize("name", COMPRESSIONS)
@pytest.mark.parametrize("size", [1, 97, 1 << 20])
def test_every_compression_of_the_kernel_is_read_in_any_pieces(name: str, size: int) -> None:
    packed = COMPRESSIONS[name](ARCHIVE)
    found = read_initrd(pieces(packed, size), lambda path: path.startswith("conf/"))
    assert found.files == set(FILES)
    assert found.kept == {"conf/conf.d/resume": FILES["conf/conf.d/resume"]}
    assert found.modules(RELEASE) == {"nvme_core", "ext4"}
    assert found.modules("5.10.0") == {"xfs"}
    assert found.has_program("mdadm")
    assert not found.has_program("lvm")


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_microcode_before_and_an_archive_after_are_read_too(name: str) -> None:
    last = newc.pack([newc.file("last", b"x")])
    packed = MICROCODE + bytes(512) + COMPRESSIONS[name](ARCHIVE) + bytes(8) + gzip.compress(last) + last + bytes(3)
    assert paths(packed) == {*FILES, "kernel/x86/microcode/GenuineIntel.bin", "last"}


def test_several_archives_in_one_compressed_part_are_read() -> None:
    assert paths(zstd.compress(MICROCODE + bytes(256) + ARCHIVE)) > set(FILES)


def test_a_name_may_begin_with_a_dot_and_a_slash() -> None:
    """As `find . | cpio` writes them."""
    entry = newc.pack([newc.file("xxa", b"x")])
    assert paths(entry.replace(b"xxa\0", b"./a\0")) == {"a"}


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_what_is_cut_off_or_damaged_is_told(name: str) -> None:
    packed = COMPRESSIONS[name](ARCHIVE)
    for cut in (len(packed) // 2, len(packed) - 130):
        with pytest.raises(InitrdError):
            paths(packed[:cut])


@pytest.mark.parametrize(
    "content", [b"", b"initrd", bytes(100), ARCHIVE + b"junk", zstd.compress(b"no cpio"), b"\x89LZO" + bytes(50)]
)
def test_what_is_no_initramfs_is_told(content: bytes) -> None:
    with pytest.raises(InitrdError):
        paths(content)


def test_a_bomb_is_told_when_the_bound_is_met_not_when_memory_is_full() -> None:
    bomb = zstd.compress(newc.pack([newc.file("big", bytes(64 << 20))]))
    assert len(bomb) < 64 << 10
    assert read_initrd(iter([bomb]), most_bytes=65 << 20).files == {"big"}
    with pytest.raises(InitrdError, match="larger unpacked"):
        read_initrd(iter([bomb]), most_bytes=1 << 20)


@given(st.binary(max_size=400), st.sampled_from(sorted(COMPRESSIONS)), st.integers(0, 300))
@settings(max_examples=60, deadline=None)
def test_no_bytes_are_anything_but_read_or_told(junk: bytes, name: str, at: int) -> None:
    small = COMPRESSIONS[name](newc.pack([newc.file("a", b"x" * 50)]))
    for content in (junk, small[:at] + junk, small[:at] + junk + small[at + 1 :], small + junk):
        try:
            read_initrd(iter([content]))
        except InitrdError:
            continue
