"""Packs, maps and placements: bounded, canonical, and a function of what went in."""

from __future__ import annotations

import contextlib
import itertools
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.errors import IntegrityError
from cloner_core.image.compression import compress, decompress
from cloner_core.image.digest import digest
from cloner_core.image.limits import MIB, PACK_RAW_BYTES
from cloner_core.image.pack import ENTRY, PackWriter, check_entries, compress_pack, decode_pack, iter_entries
from cloner_core.image.packmap import MapBuilder, PackMap, PackRef, decode_map, encode_map, iter_index
from cloner_core.image.placement import ENTRY as PLACE
from cloner_core.image.placement import Placement, decode_placement, encode_placement

VERSION, PACK = b"v" * 32, b"p" * 32


@given(st.lists(st.binary(min_size=1, max_size=100), min_size=1, max_size=20))
def test_a_pack_gives_back_its_chunks(chunks: list[bytes]) -> None:
    writer = PackWriter()
    for chunk in chunks:
        assert writer.add(digest(chunk), chunk) is None
    raw = writer.close()
    assert raw is not None
    assert writer.close() is None
    pack = compress_pack(raw)
    content = decode_pack(pack.stored, pack.digest, pack.raw_size)
    check_entries(content, pack.entries)
    entries = list(iter_entries(pack.entries, pack.raw_size))
    assert [content[offset : offset + length] for _, offset, length in entries] == chunks


def test_a_pack_is_closed_before_it_exceeds_four_mebibytes() -> None:
    writer = PackWriter()
    full = [writer.add(bytes(32), bytes(MIB)) for _ in range(5)]
    assert full[:4] == [None] * 4
    assert full[4] is not None
    assert len(full[4].raw) == PACK_RAW_BYTES


def test_a_damaged_pack_is_refused_before_it_is_decoded() -> None:
    stored = bytearray(compress(b"content" * 100))
    name = digest(stored)
    stored[-1] ^= 1
    with pytest.raises(IntegrityError, match="damaged"):
        decode_pack(stored, name, 700)


@pytest.mark.parametrize("claimed", [0, 1, 699, 701, PACK_RAW_BYTES, PACK_RAW_BYTES + 1, 1 << 62])
def test_a_pack_that_holds_another_size_than_declared_is_refused(claimed: int) -> None:
    stored = compress(b"content" * 100)
    with pytest.raises(IntegrityError):
        decode_pack(stored, digest(stored), claimed)


def test_a_bomb_is_cut_off_at_the_declared_size() -> None:
    bomb = compress(bytes(1 << 28))
    with pytest.raises(IntegrityError):
        decompress(bomb, 1000, "bomb")


@pytest.mark.parametrize(
    "stored",
    [
        compress(b"a") + compress(b"b"),
        compress(b"a") + b"\0",
        compress(b"a")[:-1],
        struct.pack("<II", 0x184D2A50, 1) + b"x",
        struct.pack("<II", 0x184D2A50, 0) + compress(b"a"),
        b"",
        bytes.fromhex("28b52ffd") + b"\x00\xa8" + compress(b"a")[6:],
    ],
    ids=["two frames", "trailing byte", "cut", "skippable", "skippable first", "empty", "window of 2 GiB"],
)
def test_anything_but_exactly_one_frame_is_refused(stored: bytes) -> None:
    with pytest.raises(IntegrityError):
        decompress(stored, 1, "frame")


@given(st.binary(max_size=200), st.integers(0, 1000))
def test_hostile_frames_are_refused_or_are_the_declared_size(stored: bytes, size: int) -> None:
    with contextlib.suppress(IntegrityError):
        assert len(decompress(stored, size, "frame")) == size


@pytest.mark.parametrize(
    "entries",
    [
        ENTRY.pack(PACK, 0, 0),
        ENTRY.pack(PACK, 0, 11),
        ENTRY.pack(PACK, 11, 1),
        ENTRY.pack(PACK, 4, 2) + ENTRY.pack(PACK, 0, 2),
        ENTRY.pack(PACK, 0, 3) + ENTRY.pack(PACK, 2, 2),
        b"x",
    ],
    ids=["empty", "too long", "outside", "unsorted", "overlapping", "cut"],
)
def test_pack_entries_that_cannot_be_are_refused(entries: bytes) -> None:
    with pytest.raises(IntegrityError):
        list(iter_entries(entries, 10))


def test_an_entry_that_names_other_bytes_is_refused() -> None:
    with pytest.raises(IntegrityError):
        check_entries(b"abc", ENTRY.pack(digest(b"abd"), 0, 3))


def entry(chunk: bytes, offset: int) -> bytes:
    return ENTRY.pack(digest(chunk), offset, len(chunk))


def test_a_map_lists_packs_by_first_use_and_only_chunks_that_are_used() -> None:
    builder = MapBuilder()
    builder.add_pack(b"1" * 32, 10, 6, entry(b"aaa", 0) + entry(b"bbb", 3))
    builder.add_pack(b"2" * 32, 10, 6, entry(b"ccc", 0) + entry(b"aaa", 3))
    builder.add_pack(b"3" * 32, 10, 3, entry(b"ddd", 0))
    assert builder.use(digest(b"ccc"), 3) == (0, 0)
    assert builder.use(digest(b"aaa"), 3) == (1, 0)
    assert builder.use(digest(b"ccc"), 3) == (0, 0)
    pack_map, index = builder.finish(VERSION)
    assert pack_map.packs == (PackRef(b"2" * 32, 10, 6, 1), PackRef(b"1" * 32, 10, 6, 1))
    assert [entries for _, entries in iter_index(pack_map, index)] == [entry(b"ccc", 0), entry(b"aaa", 0)]
    assert decode_map(encode_map(pack_map), VERSION) == pack_map


def test_a_chunk_nobody_has_in_this_length_is_refused() -> None:
    builder = MapBuilder()
    builder.add_pack(PACK, 10, 6, entry(b"aaa", 0))
    for chunk, length in ((b"bbb", 3), (b"aaa", 2)):
        with pytest.raises(IntegrityError):
            builder.use(digest(chunk), length)


def test_the_last_byte_of_a_full_pack_can_be_placed() -> None:
    builder = MapBuilder()
    name = digest(b"z")
    builder.add_pack(PACK, 10, PACK_RAW_BYTES, ENTRY.pack(name, PACK_RAW_BYTES - MIB, MIB))
    assert builder.use(name, MIB) == (0, PACK_RAW_BYTES - MIB)


@given(st.binary(max_size=200))
def test_hostile_maps_are_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        decode_map(data, VERSION)


def test_a_pack_that_two_versions_use_in_part_is_one_pack_of_the_map() -> None:
    builder = MapBuilder()
    for name, offset in ((b"a" * 32, 0), (b"b" * 32, 10)):
        builder.add_pack(PACK, 50, 20, ENTRY.pack(name, offset, 10))
    assert builder.use(b"b" * 32, 10) == (0, 10)
    assert builder.use(b"a" * 32, 10) == (0, 0)
    pack_map, index = builder.finish(VERSION)
    assert pack_map.packs == (PackRef(PACK, 50, 20, 2),)
    assert decode_map(encode_map(pack_map)) == pack_map
    assert index == ENTRY.pack(b"a" * 32, 0, 10) + ENTRY.pack(b"b" * 32, 10, 10)
    with pytest.raises(IntegrityError, match="two sizes"):
        builder.add_pack(PACK, 51, 20, b"")


def test_a_map_of_another_version_or_with_a_pack_twice_is_refused() -> None:
    ref = PackRef(PACK, 1, 1, 1)
    good = PackMap(1, VERSION, digest(b""), (ref,))
    decode_map(encode_map(good), VERSION)
    for wrong in (
        msgspec.structs.replace(good, version=PACK),
        msgspec.structs.replace(good, format=2),
        msgspec.structs.replace(good, packs=(ref, ref)),
        msgspec.structs.replace(good, packs=(PackRef(PACK, 1, PACK_RAW_BYTES + 1, 1),)),
    ):
        with pytest.raises(IntegrityError):
            decode_map(encode_map(wrong), VERSION)


def test_an_index_that_is_not_the_maps_own_is_refused() -> None:
    pack_map = PackMap(1, VERSION, digest(bytes(40)), (PackRef(PACK, 1, 1, 2),))
    for index in (b"", bytes(80), bytes(40)):
        with pytest.raises(IntegrityError):
            list(iter_index(pack_map, index))


places = st.tuples(
    st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1), st.integers(0, 1 << 20), st.integers(0, 1 << 20)
)


@given(st.lists(places, max_size=5))
def test_a_placement_is_read_back_or_refused(entries: list[tuple[int, int, int, int]]) -> None:
    flat = b"".join(PLACE.pack(*place) for place in entries)
    data = encode_placement(Placement(VERSION, PACK, flat))
    keys = [place[:2] for place in entries]
    fits = all(inode and 0 < length <= MIB and at + length <= MIB for inode, _, at, length in entries)
    if fits and all(one < two for one, two in itertools.pairwise(keys)):
        assert list(decode_placement(data, VERSION, PACK, MIB)) == entries
    else:
        with pytest.raises(IntegrityError):
            decode_placement(data, VERSION, PACK, MIB)


@given(st.binary(max_size=200))
def test_hostile_placements_are_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        decode_placement(data, VERSION, PACK, MIB)


def test_a_placement_of_another_pack_or_version_is_refused() -> None:
    data = encode_placement(Placement(VERSION, PACK, b""))
    assert len(decode_placement(data, VERSION, PACK, MIB)) == 0
    for version, pack in ((PACK, PACK), (VERSION, VERSION)):
        with pytest.raises(IntegrityError, match="another"):
            decode_placement(data, version, pack, MIB)
    for wrong in (data + b"\0", data[:-1]):
        with pytest.raises(IntegrityError):
            decode_placement(wrong, VERSION, PACK, MIB)
