"""Laws of layers: what is concatenated is what the kernel unpacks, and facts match the bytes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from backports import zstd
from blake3 import blake3

from cloner_core import newc
from cloner_initramfs import layer
from initramfsbench.archives import read

BASE = newc.with_parents([newc.file("init", b"#!/bin/sh\n" * 500, 0o755), newc.directory("proc")])
DRIVERS = newc.with_parents([newc.file("lib/modules/6.1/x.ko", os.urandom(1001))])


def unpack(initramfs: bytes) -> list[bytes]:
    """Return the raw archives of an initramfs as the kernel finds them: frames, with zeros between."""
    found = []
    while initramfs := initramfs.lstrip(b"\0"):
        frame = zstd.ZstdDecompressor()
        found.append(frame.decompress(initramfs))
        assert frame.eof
        initramfs = frame.unused_data
    return found


def built(place: Path, name: str, entries: list[newc.Entry]) -> layer.Layer:
    place.mkdir()
    layer.store(place, entries)
    return layer.load(name, place)


def test_concatenated_layers_unpack_one_after_another(tmp_path: Path) -> None:
    base, drivers = built(tmp_path / "base", "base", BASE), built(tmp_path / "drivers", "drivers", DRIVERS)
    site = layer.compress([newc.file("site", b"x")])
    size = layer.concatenate([base, drivers, site], tmp_path / "out" / "initramfs")
    whole = (tmp_path / "out" / "initramfs").read_bytes()
    assert size == len(whole) == base.size_bytes + drivers.size_bytes + len(site)
    assert [[one.path for one in read(raw)] for raw in unpack(whole)] == [
        [b"init", b"proc"],
        [b"lib", b"lib/modules", b"lib/modules/6.1", b"lib/modules/6.1/x.ko"],
        [b"site"],
    ]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["initramfs"]


def test_an_initramfs_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, synced = tmp_path / "out" / "initramfs", list[tuple[str, int, bool]]()

    def fsync(descriptor: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        size_bytes = os.fstat(descriptor).st_size if kind == "file" else 0
        synced.append((kind, size_bytes, target.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    size = layer.concatenate([built(tmp_path / "base", "base", BASE), b"site"], target)
    assert synced == [("file", size, False), ("directory", 0, True)]


def test_every_layer_ends_on_a_multiple_of_four_bytes() -> None:
    for length in range(1, 40):
        assert len(layer.compress([newc.file("f", os.urandom(length))])) % 4 == 0


def test_the_facts_of_a_layer_are_those_of_its_bytes(tmp_path: Path) -> None:
    base = built(tmp_path / "base", "base", BASE)
    stored = base.path.read_bytes()
    assert (base.digest, base.size_bytes) == (blake3(stored).hexdigest(), len(stored))


def test_the_same_entries_give_the_same_layer() -> None:
    assert layer.compress(BASE) == layer.compress(list(BASE))


def test_unpacked_size_counts_whole_pages() -> None:
    one, page = newc.file("f", b"x"), newc.file("f", bytes(4096))
    assert layer.unpacked_bytes([one]) == layer.unpacked_bytes([page])
    assert layer.unpacked_bytes([page, page]) >= 2 * 4096


def test_a_folder_is_read_sorted_with_plain_modes_and_links_as_links(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir(mode=0o700)
    (tmp_path / "b/tool").write_text("x")
    (tmp_path / "b/tool").chmod(0o4711)
    (tmp_path / "a").symlink_to("/etc/passwd")
    entries = list(layer.entries_of(tmp_path))
    assert [(one.path, one.mode, one.data) for one in sorted(entries, key=lambda one: one.path)] == [
        (b"a", stat.S_IFLNK | 0o777, b"/etc/passwd"),
        (b"b", stat.S_IFDIR | 0o755, b""),
        (b"b/tool", stat.S_IFREG | 0o755, b"x"),
    ]
