"""LLDPDUs as switches send them are read; whatever else is on the wire is refused, never believed or choked on."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cloner_core.lldp import MalformedError, Neighbor, parse_lldpdu, switch_of

MAC = bytes.fromhex("001122334455")


def element(kind: int, value: bytes) -> bytes:
    return (kind << 9 | len(value)).to_bytes(2, "big") + value


def lldpdu(
    *more: bytes, chassis: bytes = b"\4" + MAC, port: bytes = b"\5Ethernet1/12", life: bytes = b"\0\x78"
) -> bytes:
    return element(1, chassis) + element(2, port) + element(3, life) + b"".join(more) + element(0, b"")


def parse(payload: bytes) -> Neighbor | None:
    return parse_lldpdu(payload, interface="eth0", mac="52:54:00:00:00:01")


def neighbor(payload: bytes) -> Neighbor:
    found = parse(payload)
    assert found is not None
    return found


def test_a_switch_is_known_by_its_name_and_port() -> None:
    found = neighbor(lldpdu(element(4, b"to rack 12"), element(5, b"sw-r12"), element(127, b"\0\x80\xc2\1\0\1")))
    assert found == Neighbor("eth0", "52:54:00:00:00:01", "sw-r12", "00:11:22:33:44:55", "Ethernet1/12", "to rack 12")


@pytest.mark.parametrize(
    ("chassis", "called"),
    [
        (b"\4" + MAC, "00:11:22:33:44:55"),
        (b"\5\1\x0a\0\0\1", "10.0.0.1"),
        (b"\7core-2", "core-2"),
        (b"\6\0\0", "00:00"),
        (b"\7\x1b[2Jx", "?[2Jx"),
        (b"\7" + "\u00e4\u202e".encode(), "\u00e4?"),
    ],
)
def test_a_switch_without_a_name_is_known_by_its_chassis(chassis: bytes, called: str) -> None:
    found = neighbor(lldpdu(chassis=chassis))
    assert (found.switch, found.chassis) == (called, called)


def test_padding_behind_the_end_and_a_missing_end_are_no_fault() -> None:
    whole = lldpdu()
    assert parse(whole + bytes(30)) == parse(whole) == parse(whole[:-2])


def test_a_sender_that_says_good_bye_is_nobody() -> None:
    assert parse(lldpdu(life=b"\0\0")) is None


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\2",
        lldpdu()[4:],
        element(2, b"\5p") + element(1, b"\4" + MAC) + element(3, b"\0\1"),
        lldpdu(chassis=b"\4"),
        lldpdu(life=b"\1"),
        lldpdu(element(1, b"\4" + MAC)),
        lldpdu()[:-3],
        element(1, b"\4" + MAC) + b"\x05\xff",
    ],
)
def test_what_is_no_lldpdu_is_refused(payload: bytes) -> None:
    with pytest.raises(MalformedError):
        parse(payload)


@settings(max_examples=200)
@given(st.one_of(st.binary(max_size=300), st.binary(max_size=200).map(lambda tail: lldpdu()[:-2] + tail)))
@example(lldpdu(element(5, b"\xff" * 511)))
def test_hostile_bytes_give_bounded_printable_labels_or_a_refusal(payload: bytes) -> None:
    try:
        found = parse(payload)
    except MalformedError:
        return
    if found is not None:
        assert msgspec.convert(msgspec.to_builtins(found), Neighbor) == found
        assert all(len(label) <= 100 and label.isprintable() for label in msgspec.structs.astuple(found))


def test_the_word_of_an_admin_goes_before_what_the_wire_tells() -> None:
    told = (neighbor(lldpdu(element(5, b"sw-r12"))),)
    assert switch_of("rack 12, top", told, "10.0.0.1") == "rack 12, top"
    assert switch_of("", told, "10.0.0.1") == "sw-r12"
    assert switch_of("", (), "10.0.0.1") == "relay 10.0.0.1"
    assert switch_of("", (), "") == ""
