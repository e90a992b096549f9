"""The repair code: any receiver is mended by as many combinations as it misses blocks, and one or two more."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloner_core.image.digest import digest
from cloner_core.multicast.combining import Workbench, make_combinations, places, strides
from cloner_core.multicast.content import SPARE_BYTES, Content
from cloner_core.multicast.gathering import Gathering
from cloner_core.multicast.solving import Equations

CONTENT = Content(bytes(16))


@st.composite
def losses(draw: st.DrawFn) -> tuple[bytes, int, set[int]]:
    """Draw the bytes of a parcel, the size of its blocks, and the blocks that are lost."""
    size = draw(st.integers(2, 9))
    blocks = draw(st.integers(1, 60))
    data = draw(st.binary(min_size=(blocks - 1) * size + 1, max_size=blocks * size))
    return data, size, draw(st.sets(st.integers(0, blocks - 1)))


def sent(data: bytes) -> memoryview:
    return CONTENT.encrypted(5, data)


def gather(data: bytes, size: int, lost: set[int]) -> Gathering:
    gathering = Gathering(5, bytearray(len(data) + SPARE_BYTES), size, 0.0)
    for block in range(gathering.blocks):
        if block not in lost:
            assert gathering.add_blocks(block, 1, bytes(sent(data)[block * size : (block + 1) * size]))
    return gathering


@settings(max_examples=60)
@given(losses(), st.randoms(use_true_random=False))
def test_what_is_lost_comes_back_from_combinations_in_any_order(
    drawn: tuple[bytes, int, set[int]], chance: random.Random
) -> None:
    data, size, lost = drawn
    gathering = gather(data, size, lost)
    assert gathering.needed == len(lost)
    numbers = chance.sample(range(0x10000), len(lost) + 60)
    for number, payload in zip(numbers, make_combinations(Workbench(), sent(data), size, 5, numbers), strict=True):
        if gathering.is_whole:
            break
        assert gathering.needed > 0
        assert gathering.add_combinations(number, 1, payload)
        assert gathering.add_combinations(number, 1, payload)  # twice is once
    assert gathering.is_whole
    assert gathering.needed == 0
    assert bytes(gathering.finish(digest(data), CONTENT, Workbench()) or b"") == data


@settings(max_examples=60)
@given(losses(), st.randoms(use_true_random=False))
def test_blocks_that_come_after_combinations_count(drawn: tuple[bytes, int, set[int]], chance: random.Random) -> None:
    data, size, lost = drawn
    gathering = gather(data, size, lost)
    for number, payload in enumerate(make_combinations(Workbench(), sent(data), size, 5, range(len(lost)))):
        gathering.add_combinations(number, 1, payload)
    late = sorted(lost)
    chance.shuffle(late)
    for block in late:
        if not gathering.is_whole:
            gathering.add_blocks(block, 1, bytes(sent(data)[block * size : (block + 1) * size]))
    assert bytes(gathering.finish(digest(data), CONTENT, Workbench()) or b"") == data


@given(losses())
def test_false_combinations_are_never_handed_on(drawn: tuple[bytes, int, set[int]]) -> None:
    data, size, lost = drawn
    gathering = gather(data, size, lost)
    number = 0
    while not gathering.is_whole and number < 300:
        gathering.add_combinations(number, 1, b"\x5a" * size)
        number += 1
    if gathering.is_whole:
        mended = gathering.finish(digest(data), CONTENT, Workbench())
        assert mended is None or bytes(mended) == data


PATTERNS = [
    pytest.param(0.01, 1, id="1 % alone"),
    pytest.param(0.05, 1, id="5 % alone"),
    pytest.param(0.1, 1, id="10 % alone"),
    pytest.param(0.05, 44, id="5 % in bursts"),
]


@pytest.mark.parametrize(("part", "burst"), PATTERNS)
def test_two_combinations_more_than_needed_are_mostly_enough(part: float, burst: int) -> None:
    chance, blocks, more = random.Random(1), 1500, []
    for _ in range(12):
        starts = [at for at in range(blocks) if chance.random() < part / burst]
        lost = sorted({at for start in starts for at in range(start, min(blocks, start + burst))})
        equations = Equations(chance.randrange(1000), blocks, lost)
        number = 0
        while not equations.is_solvable:
            equations.add(number)
            number += 1
        more.append(number - len(lost))
    assert sum(more) / len(more) < 3.5
    assert max(more) < 20


def test_orders_hold_each_block_once() -> None:
    for blocks in (1, 2, 3, 10, 728, 2913):
        for stride in strides(blocks):
            assert len({place * stride % blocks for place in range(blocks)}) == blocks


def test_the_code_does_not_change() -> None:
    """Nodes of another release must draw the same places."""
    assert strides(2913) == (1801, 1207, 881)
    assert places(7, 3, 2913) == (440, 1529, 695, 1188, 693, 2315, 1828, 2594, 783)
    assert [one.hex() for one in make_combinations(Workbench(), bytes(range(10)), 4, 1, (0, 1, 2))] == [
        "0c0d0404",
        "0c0c0607",
        "08080203",
    ]


@given(st.integers(0, 30), st.integers(0, 30), st.binary(max_size=60))
def test_what_does_not_fit_a_parcel_is_refused(first: int, count: int, payload: bytes) -> None:
    gathering = Gathering(0, bytearray(100 + SPARE_BYTES), 10, 0.0)
    fits = count > 0 and first + count <= 10 and len(payload) == count * 10
    assert gathering.add_blocks(first, count, payload) == fits
    assert len(gathering.buffer) == 100
    assert gathering.add_combinations(first, count, payload) == (len(payload) == count * 10)


def test_a_gathering_holds_no_more_than_it_may_need() -> None:
    gathering = Gathering(0, bytearray(1000 + SPARE_BYTES), 10, 0.0)
    for number in range(0, 5000, 50):
        gathering.add_combinations(number, 50, bytes(500))
    assert len(gathering._combinations) <= 100 + 64


def test_parcels_of_any_size_follow_each_other_on_one_workbench() -> None:
    bench, chance = Workbench(), random.Random(2)
    for blocks, size in ((3, 4), (9, 4), (2, 4), (5, 6), (9, 4), (1, 4)):
        data = chance.randbytes(blocks * size - 1)
        gathering = gather(data, size, {0, blocks - 1})
        made = make_combinations(bench, sent(data), size, 5, range(20))
        assert made == make_combinations(Workbench(), sent(data), size, 5, range(20))
        gathering.add_combinations(0, 20, b"".join(made))
        assert bytes(gathering.finish(digest(data), CONTENT, bench) or b"") == data
