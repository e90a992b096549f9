"""What is read out of a boot request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.errors import InvalidError
from cloner_pxe.request import MAC_FORM, normal_mac


@given(st.binary(min_size=6, max_size=6), st.sampled_from([":", "-", ""]), st.booleans())
def test_a_mac_is_read_in_each_of_its_spellings(raw: bytes, separator: str, is_upper: bool) -> None:
    written = raw.hex(separator) if separator else raw.hex()
    assert normal_mac(written.upper() if is_upper else written) == raw.hex(":")


@given(st.text(max_size=30))
def test_anything_else_is_refused_or_really_is_a_mac(text: str) -> None:
    try:
        mac = normal_mac(text)
    except InvalidError:
        return
    assert MAC_FORM.match(mac)


@pytest.mark.parametrize(
    "text",
    ["", "52:54:00:12:34", "52:54:00:12:34:5g", "52:54-00:12:34:56", "52:54:00:12:34:56\n", "52540012345٣"],
)
def test_a_malformed_mac_is_refused(text: str) -> None:
    with pytest.raises(InvalidError, match="not a MAC address"):
        normal_mac(text)
