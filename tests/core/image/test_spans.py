"""Where chunks lie follows from size and holes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.errors import IntegrityError
from cloner_core.image.limits import CHUNK_BYTES, MIB
from cloner_core.image.spans import Span, Spans, decode_holes, encode_holes


@st.composite
def files(draw: st.DrawFn) -> tuple[int, list[Span]]:
    cuts = sorted(draw(st.sets(st.integers(0, 6 * MIB), max_size=11)))
    size = cuts.pop() if cuts else 0
    return size, [(start, end - start) for start, end in zip(cuts[::2], cuts[1::2], strict=False)]


@given(files())
def test_chunks_and_holes_cover_the_file_once(file: tuple[int, list[Span]]) -> None:
    size, holes = file
    spans = list(Spans(size, encode_holes(holes)))
    position = 0
    for offset, length in sorted(spans + holes):
        assert offset == position
        position += length
    assert position == size
    for offset, length in spans:
        assert offset // CHUNK_BYTES == (offset + length - 1) // CHUNK_BYTES


@given(files())
def test_a_chunk_is_found_where_it_begins_and_nowhere_else(file: tuple[int, list[Span]]) -> None:
    size, holes = file
    spans = Spans(size, encode_holes(holes))
    listed = list(spans)
    assert len(spans) == len(listed)
    assert spans.data_bytes == sum(length for _, length in listed)
    begins = {offset for offset, _ in listed}
    for number, (offset, length) in enumerate(listed):
        assert spans.find(offset) == (number, length)
        if offset + 1 not in begins:
            assert spans.find(offset + 1) == (-1, 0)
    assert spans.find(size) == (-1, 0)
    for offset, _ in holes:
        assert spans.find(offset) == (-1, 0)


@pytest.mark.parametrize(
    ("size", "holes", "count"),
    [(0, [], 0), (1, [], 1), (MIB, [], 1), (MIB + 1, [], 2), (MIB, [(0, MIB)], 0), (3 * MIB, [(MIB // 2, MIB)], 3)],
)
def test_known_files_have_the_number_of_chunks_the_format_says(size: int, holes: list[Span], count: int) -> None:
    assert len(Spans(size, encode_holes(holes))) == count


@pytest.mark.parametrize(
    "holes",
    [[(5, 0)], [(0, 11)], [(2, 2), (4, 1)], [(4, 1), (2, 1)], [(2, 3), (3, 1)], [(1 << 63, 1 << 63)]],
    ids=["empty", "outside", "touching", "unsorted", "overlapping", "huge"],
)
def test_holes_that_are_wrong_are_refused(holes: list[Span]) -> None:
    with pytest.raises(IntegrityError):
        decode_holes(encode_holes(holes), 10)


def test_half_a_pair_is_refused() -> None:
    with pytest.raises(IntegrityError):
        decode_holes(b"\0" * 15, 10)


def test_a_file_of_too_many_chunks_is_refused_without_listing_them() -> None:
    with pytest.raises(IntegrityError):
        Spans(1 << 44)
