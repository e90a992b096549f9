"""Text for terminals: no control character of a stranger gets through, a row stays a line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_cli.text import columns, duration, fields, moment, printable

hostile = st.text(alphabet=st.characters(), max_size=40)


@given(hostile)
def test_nothing_but_printable_characters_is_shown(text: str) -> None:
    assert printable(text).isprintable()


@given(st.text(alphabet=st.characters(categories=["L", "N", "P"]), max_size=40))
def test_plain_text_is_shown_as_it_is(text: str) -> None:
    assert printable(text) == text


@given(st.lists(st.tuples(hostile, hostile), max_size=5))
def test_a_row_is_one_line_whatever_is_in_it(rows: list[tuple[str, str]]) -> None:
    lines = columns(("ONE", "TWO"), rows).split("\n")
    assert len(lines) == 1 + len(rows)
    assert all(line.isprintable() for line in lines)


@given(hostile)
def test_a_field_never_begins_a_line_of_its_own(value: str) -> None:
    first, *rest = fields([("name", value)]).split("\n")
    assert first.startswith("name  ")
    assert all(line.startswith(" ") for line in rest)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (44.6, "45 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (3900, "1 h 5 min"),
        (3661, "1 h 1 min"),
        (-3, "0 s"),
    ],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_absent_time_is_a_hyphen() -> None:
    assert moment(None) == "-"
