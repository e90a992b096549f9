"""Documents of people: what would hide a mistake or take the memory is a fault, never an exception of a library."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_cli.documents import parse_yaml
from cloner_core.errors import InvalidError

BAD = {
    "a key twice": ("a: 1\nb: 2\na: 3\n", "'a' is given twice"),
    "a key twice, deep": ("a:\n  b: 1\n  b: 2\n", "'b' is given twice"),
    "an alias": ("a: &x [1, 2]\nb: *x\n", "aliases"),
    "laughs": ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "aliases"),
    "a key that is no text": ("1: one\n", "not text"),
    "no YAML": ("a: [1, 2\n", "not YAML"),
    "a Python object": ("a: !!python/object/apply:os.system [id]\n", "not YAML"),
    "no text": ("\x00", "not YAML"),
}


@pytest.mark.parametrize(("text", "told"), BAD.values(), ids=list(BAD))
def test_a_bad_document_is_refused_with_its_reason(text: str, told: str) -> None:
    with pytest.raises(InvalidError, match=told):
        parse_yaml(text.encode(), "layout.yaml")


@given(st.binary(max_size=200) | st.text(alphabet="ab:-[]{}&*!#|>'\" \n0.", max_size=80).map(str.encode))
def test_hostile_bytes_give_a_value_or_an_invalid_error(content: bytes) -> None:
    with suppress(InvalidError):
        parse_yaml(content, "x")
