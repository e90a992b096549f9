"""The rig of the power cuts: what was flushed always survives, what was not may be lost, reads see what was written."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmlab.volatile import PAGE_BYTES, SECTOR_BYTES, FileMedium, MemoryMedium, VolatileDisk

SECTORS = 4200  # more than two chunks of the cache
SIZE = SECTORS * SECTOR_BYTES
ALWAYS, NEVER = 1.0, 0.0

places = st.integers(0, SECTORS - 1).flatmap(
    lambda first: st.tuples(st.just(first), st.integers(1, min(40, SECTORS - first)))
)
steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["write", "zero", "forced"]), places),
        st.tuples(st.sampled_from(["flush", "cut"]), st.just((0, 1))),
    ),
    max_size=25,
)


ZEROS = bytes(SECTOR_BYTES)


class Model:
    """What may lie in each sector: one content that is sure, or any of those written since."""

    def __init__(self) -> None:
        self.sure: dict[int, bytes] = {}
        self.since: dict[int, list[bytes]] = {}

    def newest(self, sector: int) -> bytes:
        return self.since[sector][-1] if sector in self.since else self.sure.get(sector, ZEROS)


@settings(max_examples=40, deadline=None)
@given(steps=steps, seed=st.integers(0, 2**32))
def test_a_cut_leaves_of_each_sector_what_was_flushed_or_something_written_since(
    steps: list[tuple[str, tuple[int, int]]], seed: int
) -> None:
    disk, model, chance = VolatileDisk(MemoryMedium(SIZE)), Model(), random.Random(seed)
    for what, (first, count) in [*steps, ("cut", (0, 1))]:
        covered = range(first, first + count)
        content = bytes(count * SECTOR_BYTES) if what == "zero" else chance.randbytes(count * SECTOR_BYTES)
        parts = [content[at * SECTOR_BYTES : (at + 1) * SECTOR_BYTES] for at in range(count)]
        if what == "flush":
            disk.flush()
            model.sure |= {sector: model.newest(sector) for sector in model.since}
            model.since.clear()
            assert disk.unflushed_bytes == 0
        elif what == "cut":
            disk.cut(chance)
            for sector, written in model.since.items():
                seen = disk.read(sector * SECTOR_BYTES, SECTOR_BYTES)
                assert seen in (model.sure.get(sector, ZEROS), *written)
                model.sure[sector] = seen
            model.since.clear()
        elif what == "forced":
            disk.write(first * SECTOR_BYTES, content, is_forced=True)
            for sector, part in zip(covered, parts, strict=True):
                model.sure[sector] = part
                model.since.pop(sector, None)
        else:
            if what == "zero":
                disk.zero(first * SECTOR_BYTES, len(content))
            else:
                disk.write(first * SECTOR_BYTES, content)
            for sector, part in zip(covered, parts, strict=True):
                model.since.setdefault(sector, []).append(part)
        start = max(0, first - 2)
        around = range(start, min(SECTORS, first + count + 2))
        wanted = b"".join(map(model.newest, around))
        assert disk.read(start * SECTOR_BYTES, len(wanted)) == wanted
    assert disk.read(0, SIZE) == b"".join(model.newest(sector) for sector in range(SECTORS))


def test_what_was_flushed_outlives_a_cut_that_takes_everything_else() -> None:
    disk = VolatileDisk(MemoryMedium(SIZE))
    disk.write(0, b"a" * PAGE_BYTES)
    disk.flush()
    disk.write(PAGE_BYTES, b"b" * PAGE_BYTES)
    disk.zero(0, SECTOR_BYTES)
    loss = disk.cut(random.Random(1), NEVER)
    assert (loss.kept_bytes, loss.dropped_bytes) == (0, PAGE_BYTES + SECTOR_BYTES)
    assert disk.read(0, 2 * PAGE_BYTES) == b"a" * PAGE_BYTES + bytes(PAGE_BYTES)


def test_writes_survive_out_of_order_and_torn_but_never_the_older_over_the_younger() -> None:
    outcomes = set()
    torn = 0
    for seed in range(200):
        disk = VolatileDisk(MemoryMedium(SIZE))
        disk.write(0, b"1" * PAGE_BYTES)
        disk.write(PAGE_BYTES, b"2" * PAGE_BYTES)
        disk.write(0, b"3" * PAGE_BYTES)
        disk.cut(random.Random(seed), 0.6)
        first, second = disk.read(0, PAGE_BYTES), disk.read(PAGE_BYTES, PAGE_BYTES)
        torn += len(set(first)) > 1 or len(set(second)) > 1
        outcomes.add((first[:1], second[:1]))
    zero = b"\0"
    assert outcomes == {(a, b) for a in (zero, b"1", b"3") for b in (zero, b"2")}
    assert torn > 0


def test_everything_survives_a_cut_that_takes_nothing_but_what_is_torn() -> None:
    disk = VolatileDisk(MemoryMedium(SIZE))
    disk.write(0, b"x" * SIZE)
    loss = disk.cut(random.Random(3), ALWAYS)
    assert 0 < loss.dropped_bytes < loss.kept_bytes
    assert loss.dropped_bytes + loss.kept_bytes == SIZE


def test_a_lying_disk_loses_what_it_said_was_flushed() -> None:
    disk = VolatileDisk(MemoryMedium(SIZE), is_lying=True)
    disk.write(0, b"a" * SECTOR_BYTES)
    disk.flush()
    disk.write(SECTOR_BYTES, b"b" * SECTOR_BYTES, is_forced=True)
    assert disk.read(0, 2 * SECTOR_BYTES) == b"a" * SECTOR_BYTES + b"b" * SECTOR_BYTES
    disk.cut(random.Random(1), NEVER)
    assert disk.read(0, 2 * SECTOR_BYTES) == bytes(2 * SECTOR_BYTES)


def test_a_full_cache_lets_go_of_its_oldest_writes() -> None:
    disk = VolatileDisk(MemoryMedium(4 << 20), capacity_bytes=2 << 20)
    for number in range(4):
        disk.write(number << 20, b"%d" % number * (1 << 20))
    assert disk.unflushed_bytes == 2 << 20
    disk.cut(random.Random(1), NEVER)
    assert [disk.read(number << 20, 1) for number in range(4)] == [b"0", b"1", b"\0", b"\0"]


@pytest.mark.parametrize(("offset", "length"), [(-512, 512), (SIZE, 512), (SIZE - 512, 1024), (0, 0)])
def test_nothing_beyond_the_disk_is_served(offset: int, length: int) -> None:
    disk = VolatileDisk(MemoryMedium(SIZE))
    with pytest.raises(ValueError):
        disk.read(offset, length)
    with pytest.raises(ValueError):
        disk.zero(offset, length)


def test_a_file_keeps_what_a_disk_keeps_and_stays_sparse(tmp_path: Path) -> None:
    path = tmp_path / "medium"
    path.touch()
    os.truncate(path, 64 << 20)
    medium = FileMedium(path)
    medium.write(5 << 20, b"kept" * 1024)
    medium.zero(0, 64 << 20)
    assert medium.read(5 << 20, 8192) == bytes(8192)
    medium.write((64 << 20) - 3, b"end")
    medium.zero((64 << 20) - 2, 1)
    assert medium.read((64 << 20) - 4, 4) == b"\0e\0d"
    medium.close()
    assert path.stat().st_blocks * 512 < 4 << 20
