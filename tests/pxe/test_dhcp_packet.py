"""The DHCP codec: exact for good packets, total for any bytes."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP

from cloner_pxe.dhcp_packet import (
    MalformedPacketError,
    MessageType,
    Op,
    Option,
    Packet,
    decode,
    encode,
    sub_options,
)

addresses = st.integers(0, 2**32 - 1).map(IPv4Address)
plain_options = st.dictionaries(
    st.integers(1, 254).filter(lambda code: code not in (Option.MESSAGE_TYPE, Option.OVERLOAD)),
    st.binary(max_size=600),
    max_size=4,
)
packets = st.builds(
    Packet,
    op=st.sampled_from(Op),
    message_type=st.sampled_from(MessageType),
    xid=st.integers(0, 2**32 - 1),
    mac=st.binary(min_size=5, max_size=5).map(lambda raw: (b"\x02" + raw).hex(":")),
    hops=st.integers(0, 255),
    secs=st.integers(0, 65535),
    flags=st.sampled_from([0, 0x8000]),
    ciaddr=addresses,
    yiaddr=addresses,
    siaddr=addresses,
    giaddr=addresses,
    sname=st.text("abc.", max_size=63).map(str.encode),
    file=st.text("abc/.", max_size=127).map(str.encode),
    options=plain_options,
)
GOOD = Packet(
    op=Op.REQUEST,
    message_type=MessageType.DISCOVER,
    xid=7,
    mac="52:54:00:12:34:56",
    options={Option.ARCH: b"\0\7", Option.VENDOR_CLASS: b"PXEClient"},
)


@given(packets)
def test_what_is_encoded_is_decoded_again(packet: Packet) -> None:
    assert decode(encode(packet)) == packet


@given(packets)
def test_a_foreign_reader_sees_the_same(packet: Packet) -> None:
    seen = BOOTP(encode(packet))
    assert (seen.op, seen.xid, seen.yiaddr, seen.giaddr) == (
        packet.op,
        packet.xid,
        str(packet.yiaddr),
        str(packet.giaddr),
    )
    assert seen.file.rstrip(b"\0") == packet.file
    assert seen.chaddr[:6].hex(":") == packet.mac
    assert ("message-type", packet.message_type) in seen[DHCP].options


@given(st.binary(max_size=700))
def test_no_bytes_do_anything_but_decode_or_be_refused(junk: bytes) -> None:
    for datagram in (junk, encode(GOOD)[:240] + junk, encode(GOOD)[: len(junk)]):
        try:
            decode(datagram)
        except MalformedPacketError:
            continue


@given(st.lists(st.tuples(st.integers(0, 299), st.integers(0, 255)), min_size=1, max_size=12))
def test_a_good_packet_with_changed_bytes_decodes_or_is_refused(changes: list[tuple[int, int]]) -> None:
    datagram = bytearray(encode(GOOD))
    for at, byte in changes:
        datagram[at] = byte
    try:
        packet = decode(bytes(datagram))
    except MalformedPacketError:
        return
    packet.text(Option.VENDOR_CLASS)
    packet.address(Option.SERVER_ID)


def test_options_are_read_out_of_the_fields_file_and_sname_when_overloaded() -> None:
    datagram = bytearray(encode(GOOD))
    datagram[243:] = bytes((Option.OVERLOAD, 1, 3, Option.END))
    datagram[108:112] = bytes((Option.MESSAGE_TYPE, 1, MessageType.REQUEST, Option.END))
    datagram[44:52] = bytes((Option.HOST_NAME, 3, *b"box", Option.PAD, Option.PAD, Option.END))
    packet = decode(bytes(datagram[:240]) + bytes(datagram[243:]))
    assert packet.message_type is MessageType.REQUEST
    assert packet.options[Option.HOST_NAME] == b"box"
    assert (packet.file, packet.sname) == (b"", b"")


def test_a_url_too_long_for_the_field_stays_in_the_option_alone() -> None:
    url = b"http://10.0.0.1/" + b"x" * 200
    packet = decode(encode(Packet(**_fields(file=url, options={Option.BOOT_FILE: url}))))  # type: ignore[arg-type]
    assert packet.file == b""
    assert packet.options[Option.BOOT_FILE] == url


REFUSED = [
    pytest.param(encode(GOOD)[:239], "no DHCP packet", id="too short"),
    pytest.param(encode(GOOD) + bytes(4096), "no DHCP packet", id="too long"),
    pytest.param(encode(GOOD)[:236] + bytes(64), "cookie", id="plain BOOTP"),
    pytest.param(b"\1\6" + encode(GOOD)[2:], "Ethernet", id="token ring"),
    pytest.param(encode(GOOD)[:28] + bytes(6) + encode(GOOD)[34:], "Ethernet", id="no address"),
    pytest.param(encode(GOOD)[:28] + b"\xff" * 6 + encode(GOOD)[34:], "Ethernet", id="broadcast address"),
    pytest.param(b"\3" + encode(GOOD)[1:], "op is 3", id="neither request nor reply"),
    pytest.param(encode(GOOD)[:240] + b"\xff" + bytes(60), "message type", id="no type"),
    pytest.param(encode(GOOD)[:240] + b"\x35\1\x09\xff", "message type", id="unknown type"),
    pytest.param(encode(GOOD)[:240] + b"\x35\xf0\1", "runs over", id="option beyond the end"),
]


@pytest.mark.parametrize(("datagram", "match"), REFUSED)
def test_what_we_cannot_use_is_refused_by_name(datagram: bytes, match: str) -> None:
    with pytest.raises(MalformedPacketError, match=match):
        decode(datagram)


@given(st.binary(max_size=80))
def test_encapsulated_options_never_raise(raw: bytes) -> None:
    assert all(isinstance(value, bytes) for value in sub_options(raw).values())


def _fields(**changed: object) -> dict[str, object]:
    return {"op": Op.REPLY, "message_type": MessageType.OFFER, "xid": 1, "mac": GOOD.mac, **changed}
