"""Numbers and channels of an image are told apart by their first character, and everything else is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.errors import InvalidError
from cloner_core.image.reference import channel_faults, parse_reference, parse_version

REFERENCES = {
    "debian": ("debian", None),
    "debian:3": ("debian", 3),
    "debian:prod": ("debian", "prod"),
    "debian-12.1:r2026.11_a-b": ("debian-12.1", "r2026.11_a-b"),
}


@pytest.mark.parametrize(("text", "meant"), REFERENCES.items(), ids=list(REFERENCES))
def test_a_reference_names_an_image_and_a_version(text: str, meant: tuple[str, object]) -> None:
    assert parse_reference(text) == meant


@pytest.mark.parametrize(
    "text", ["", ":3", "a:", "a:0", "a:03", "a:-1", "a:3x", "a:Prod", "a:b:c", "a b", f"a:{'9' * 10}"]
)
def test_what_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(InvalidError, match="NAME:CHANNEL"):
        parse_reference(text)


@pytest.mark.parametrize("name", ["", "3", "3prod", "Prod", "-x", "a b", "a:b", "latest", "newest", "a" * 64])
def test_what_cannot_name_a_channel_is_refused(name: str) -> None:
    assert len(channel_faults(name)) == 1


def test_a_number_of_ten_digits_is_no_channel_either() -> None:
    with pytest.raises(InvalidError, match="greater"):
        parse_version("9" * 10)


@given(st.text(max_size=20))
def test_a_version_is_a_number_or_a_name_and_never_both(text: str) -> None:
    try:
        parsed = parse_version(text)
    except InvalidError:
        return
    assert str(parsed) == text if text else parsed is None
    assert isinstance(parsed, int) == text.isdecimal()
