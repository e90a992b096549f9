"""The question who listens: as RFC 2236 writes it, when it is due, and not while a lower address asks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_server.multicast.querier import Election, asks, general_query


def packet(source: str, body: bytes, options: bytes = b"\x94\x04\x00\x00", protocol: int = 2) -> bytes:
    head = bytearray(20)
    head[0] = 0x40 + (20 + len(options)) // 4
    head[9] = protocol
    head[12:16] = bytes(map(int, source.split(".")))
    head[16:20] = bytes((224, 0, 0, 1))
    return bytes(head) + options + body


def test_a_question_is_as_the_standard_writes_it() -> None:
    # Type 0x11, 5 s in tenths, checksum, group 0.0.0.0; the checksum by hand: ~0x1132.
    assert general_query(5.0) == bytes.fromhex("1132eecd00000000")


def test_a_question_is_known_with_and_without_options() -> None:
    assert asks(packet("10.0.0.1", general_query(5.0))) == "10.0.0.1"
    assert asks(packet("10.0.0.1", general_query(0.1), b"")) == "10.0.0.1"
    version_3 = bytes.fromhex("1114ecd7000000000214") + bytes(2)  # RFC 3376 §4.1: within 2 s, every 20 s, no sources
    assert asks(packet("10.0.0.1", version_3)) == "10.0.0.1"


@pytest.mark.parametrize(
    "other",
    [
        packet("10.0.0.1", general_query(5.0)[:2] + b"\0\0" + general_query(5.0)[4:]),  # a wrong checksum
        packet("10.0.0.1", bytes.fromhex("1600e9ff00000000")),  # a report
        packet("10.0.0.1", bytes.fromhex("113200cbefff0001")),  # about one group
        packet("10.0.0.1", general_query(5.0), protocol=17),
        packet("10.0.0.1", general_query(5.0)[:7]),
    ],
    ids=["checksum", "report", "one group", "udp", "short"],
)
def test_nothing_else_is_a_question(other: bytes) -> None:
    assert asks(other) is None


@given(st.binary(max_size=64))
def test_whatever_comes_is_read_or_passed_over(data: bytes) -> None:
    asks(data)


def asked_at(election: Election, until_s: int) -> list[int]:
    return [second for second in range(until_s) if election.is_due(second)]


def test_it_asks_twice_at_the_begin_and_then_every_minute() -> None:
    assert asked_at(Election("10.0.0.5", 0.0), 200) == [0, 15, 75, 135, 195]


def test_it_is_silent_while_a_lower_address_asks_and_a_while_longer() -> None:
    election = Election("10.0.0.5", 0.0)
    election.heard("10.0.0.4", 0.0)
    assert asked_at(election, 400) == [195, 255, 315, 375]  # 150 s later, when it is due


@pytest.mark.parametrize("other", ["10.0.0.6", "0.0.0.0"])
def test_it_yields_to_no_higher_address_and_to_no_switch(other: str) -> None:
    election = Election("10.0.0.5", 0.0)
    election.heard(other, 0.0)
    assert asked_at(election, 20) == [0, 15]
