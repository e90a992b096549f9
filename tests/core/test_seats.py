"""What agent and server say of seats, and how a parcel is put together."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.errors import InvalidError
from cloner_core.messages import Secret
from cloner_core.seats import NoSeat, Seat, SeatLater, SeatReply, decode_seat, make_parcel, split_parcel

TAKEN = Seat(1, 7, 3, Secret("00" * 16), Secret("11" * 16), "239.255.67.1", 47000, "10.0.0.1", 40001, 1, 1440, 16)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_a_parcel_gives_back_what_went_in(placement: bytes, pack: bytes) -> None:
    got = split_parcel(memoryview(make_parcel(placement, pack)))
    assert tuple(map(bytes, got)) == (pack, placement)


@pytest.mark.parametrize("parcel", [b"", b"\0\0\0", b"\0\0\0\1", b"\0\0\0\5abcd"])
def test_a_parcel_that_ends_too_early_is_refused(parcel: bytes) -> None:
    with pytest.raises(InvalidError, match="a parcel of"):
        split_parcel(memoryview(parcel))


@pytest.mark.parametrize("reply", [TAKEN, SeatLater("its sender starts"), NoSeat("the session ended")])
def test_an_answer_to_who_wants_a_seat_is_understood(reply: SeatReply) -> None:
    assert decode_seat(msgspec.json.encode(reply)) == reply


def test_the_keys_of_a_seat_are_shown_to_nobody() -> None:
    assert "00" * 16 not in repr(TAKEN)
    assert "11" * 16 not in repr(TAKEN)
