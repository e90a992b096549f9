"""Who counts as another DHCP server."""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from cloner_pxe.dhcp_packet import MessageType, Op, Option, Packet, decode, encode
from cloner_pxe.dhcp_probe import OtherServer, discoveries, read_offer

MAC = "02:00:00:00:00:01"


def offer(**fields: object) -> bytes:
    given_fields = {
        "op": Op.REPLY,
        "message_type": MessageType.OFFER,
        "xid": 5,
        "mac": MAC,
        "yiaddr": IPv4Address("10.0.0.9"),
        "options": {Option.SERVER_ID: IPv4Address("10.0.0.2").packed},
        **fields,
    }
    return encode(Packet(**given_fields))  # type: ignore[arg-type]


def test_an_offer_of_an_address_is_a_dhcp_server() -> None:
    assert read_offer(offer(), 5) == OtherServer(address="10.0.0.2", gives_addresses=True)


def test_an_offer_without_an_address_is_a_proxy() -> None:
    assert read_offer(offer(yiaddr=IPv4Address(0)), 5) == OtherServer(address="10.0.0.2", gives_addresses=False)


def test_what_was_said_to_others_is_not_counted() -> None:
    assert read_offer(offer(xid=6), 5) is None
    assert read_offer(offer(message_type=MessageType.ACK), 5) is None
    assert read_offer(offer(options={}), 5) is None


@given(st.binary(max_size=400))
def test_junk_is_nobody(junk: bytes) -> None:
    assert read_offer(junk, 5) is None


def test_both_kinds_of_server_are_asked_to_answer_by_broadcast() -> None:
    plain, pxe = (decode(datagram) for datagram in discoveries(MAC, 5))
    assert not plain.text(Option.VENDOR_CLASS)
    assert pxe.text(Option.VENDOR_CLASS).startswith("PXEClient")
    assert plain.flags == pxe.flags == 0x8000
