"""The DHCP state machine: RFC 2131's exchanges, and the fields each firmware reads."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.errors import InvalidError
from cloner_pxe.decision import AnyAnswer, BootPolicy, decide
from cloner_pxe.dhcp import DhcpConfig, DhcpServer, Mode, Reply
from cloner_pxe.dhcp_leases import MemoryLeases, Pool, Reservation
from cloner_pxe.dhcp_packet import MessageType, Op, Option, Packet, decode, encode
from cloner_pxe.events import EventKind

SERVER = IPv4Address("10.0.0.1")
NETWORK = IPv4Network("10.0.0.0/24")
POOL = Pool(IPv4Address("10.0.0.100"), IPv4Address("10.0.0.120"))
POLICY = BootPolicy(server_address="10.0.0.1", http_base="http://10.0.0.1:8080")
MAC = "52:54:00:12:34:56"
EFI = {Option.VENDOR_CLASS: b"PXEClient:Arch:00007:UNDI:003016", Option.ARCH: b"\0\7"}
IPXE = {**EFI, Option.USER_CLASS: b"iPXE", Option.IPXE: b"\x13\1\1"}
HTTP = {Option.VENDOR_CLASS: b"HTTPClient:Arch:00016:UNDI:003016", Option.ARCH: b"\0\x10"}
OS: dict[Option, bytes] = {Option.HOST_NAME: b"box"}


def server(mode: Mode = Mode.AUTHORITATIVE) -> DhcpServer:
    return DhcpServer(DhcpConfig(server_address=SERVER, network=NETWORK, pool=POOL, mode=mode), MemoryLeases())


def ask(
    dhcp: DhcpServer,
    kind: MessageType,
    options: dict[Option, bytes],
    *,
    port: int = 67,
    mac: str = MAC,
    reservation: Reservation | None = None,
    now: float = 0,
    **fields: object,
) -> Reply:
    packet = Packet(op=Op.REQUEST, message_type=kind, xid=99, mac=mac, options=dict(options), **fields)  # type: ignore[arg-type]
    inquiry = dhcp.read(encode(packet), ("10.0.0.55", 1068), port=port)
    if inquiry is None:
        return Reply()
    answer: AnyAnswer = decide(None, inquiry.request, POLICY)
    return dhcp.reply(inquiry, answer, reservation, now)


def offer(dhcp: DhcpServer, options: dict[Option, bytes], **fields: object) -> Packet:
    return decode(ask(dhcp, MessageType.DISCOVER, options, **fields).datagram)  # type: ignore[arg-type]


def take(dhcp: DhcpServer, options: dict[Option, bytes], address: IPv4Address, **fields: object) -> Reply:
    chosen = {Option.SERVER_ID: SERVER.packed, Option.REQUESTED_ADDRESS: address.packed}
    return ask(dhcp, MessageType.REQUEST, {**options, **chosen}, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [EFI, IPXE, HTTP, OS], ids=["efi", "ipxe", "http boot", "system"])
def test_discover_offer_request_ack(options: dict[Option, bytes]) -> None:
    dhcp = server()
    offered = offer(dhcp, options)
    assert offered.message_type is MessageType.OFFER
    assert offered.yiaddr in NETWORK
    acked = decode(take(dhcp, options, offered.yiaddr).datagram)
    assert (acked.message_type, acked.yiaddr, acked.xid, acked.mac) == (
        MessageType.ACK,
        offered.yiaddr,
        99,
        MAC,
    )
    assert acked.options[Option.SUBNET_MASK] == IPv4Address("255.255.255.0").packed
    assert acked.options[Option.LEASE_SECONDS] == (3600).to_bytes(4, "big")
    # Offer and acknowledgement say the same of booting.
    assert [offered.options.get(code) for code in (43, 60, 66, 67, 175)] == [
        acked.options.get(code) for code in (43, 60, 66, 67, 175)
    ]


def test_firmware_finds_the_loader_in_both_places_and_no_option_60() -> None:
    offered = offer(server(), EFI)
    assert offered.file == offered.options[Option.BOOT_FILE] == b"snponly.efi"
    assert offered.siaddr == SERVER
    assert offered.options[Option.TFTP_SERVER] == b"10.0.0.1"
    assert Option.VENDOR_CLASS not in offered.options  # it would send EDK2 to port 4011
    assert Option.IPXE not in offered.options


def test_ipxe_gets_its_script_and_is_told_not_to_wait_for_a_proxy() -> None:
    offered = offer(server(), IPXE)
    assert offered.options[Option.BOOT_FILE] == (b"http://10.0.0.1:8080/boot/ipxe?mac=52-54-00-12-34-56&platform=efi")
    assert offered.file == offered.options[Option.BOOT_FILE]
    assert offered.options[Option.IPXE] == b"\xb0\x01\x01"


def test_a_user_class_in_the_form_of_rfc_3004_is_ipxe_too() -> None:
    assert b"/boot/ipxe?" in offer(server(), {**EFI, Option.USER_CLASS: b"\4iPXE"}).file


def test_http_boot_firmware_gets_option_60_and_an_absolute_url() -> None:
    offered = offer(server(), HTTP)
    assert offered.options[Option.VENDOR_CLASS] == b"HTTPClient"
    assert offered.options[Option.BOOT_FILE] == b"http://10.0.0.1:8080/boot/loader/snponly.efi"


def test_an_operating_system_gets_no_boot_file() -> None:
    offered = offer(server(), OS)
    assert offered.file == b""
    assert Option.BOOT_FILE not in offered.options


def test_client_identifier_and_machine_uuid_are_repeated() -> None:
    said = {Option.CLIENT_ID: b"\1" + bytes(6), Option.MACHINE_UUID: b"\0" + bytes(range(16))}
    offered = offer(server(), {**EFI, **said})
    assert {code: offered.options[code] for code in said} == said


def test_replies_go_where_the_client_can_hear_them() -> None:
    dhcp = server()
    assert ask(dhcp, MessageType.DISCOVER, OS).to == ("255.255.255.255", 68)
    relayed = ask(dhcp, MessageType.DISCOVER, OS, giaddr=IPv4Address("10.0.0.254"))
    assert relayed.to == ("10.0.0.254", 67)
    assert decode(relayed.datagram).giaddr == IPv4Address("10.0.0.254")
    address = offer(dhcp, OS).yiaddr
    take(dhcp, OS, address)
    assert ask(dhcp, MessageType.REQUEST, OS, ciaddr=address).to == (str(address), 68)


@pytest.mark.parametrize("field", ["giaddr", "ciaddr"])
@pytest.mark.parametrize("kind", MessageType)
@pytest.mark.parametrize("mode", Mode)
def test_nobody_makes_us_send_to_a_foreign_network(field: str, kind: MessageType, mode: Mode) -> None:
    reply = ask(server(mode), kind, IPXE, **{field: IPv4Address("192.0.2.7")})  # type: ignore[arg-type]
    assert reply == Reply()


def test_taking_another_servers_offer_is_told_and_not_answered() -> None:
    chosen = {Option.SERVER_ID: IPv4Address("10.0.0.9").packed, Option.REQUESTED_ADDRESS: bytes(4)}
    reply = ask(server(), MessageType.REQUEST, {**EFI, **chosen})
    assert not reply.datagram
    assert reply.events[0].kind is EventKind.OTHER_DHCP
    assert "10.0.0.9" in reply.events[0].text


@pytest.mark.parametrize("wanted", ["192.0.2.1", "10.0.0.1", "10.0.0.99", "10.0.0.255"])
def test_a_restarted_machine_that_wants_a_wrong_address_is_refused_aloud(wanted: str) -> None:
    options = {**OS, Option.REQUESTED_ADDRESS: IPv4Address(wanted).packed}
    reply = ask(server(), MessageType.REQUEST, options)
    assert decode(reply.datagram).message_type is MessageType.NAK
    assert reply.to == ("255.255.255.255", 68)


def test_two_machines_never_hold_one_address() -> None:
    dhcp = server()
    address = offer(dhcp, OS).yiaddr
    take(dhcp, OS, address)
    reply = take(dhcp, OS, address, mac="52:54:00:00:00:02")
    assert decode(reply.datagram).message_type is MessageType.NAK


def test_a_reservation_gives_address_and_name() -> None:
    fixed = Reservation(address="10.0.0.42", hostname="node01")
    dhcp = server()
    offered = offer(dhcp, EFI, reservation=fixed)
    assert (offered.yiaddr, offered.options[Option.HOST_NAME]) == (IPv4Address("10.0.0.42"), b"node01")
    acked = decode(take(dhcp, EFI, offered.yiaddr, reservation=fixed).datagram)
    assert acked.message_type is MessageType.ACK


def test_a_reservation_somebody_else_holds_raises_an_alarm() -> None:
    dhcp = server()
    address = offer(dhcp, OS).yiaddr
    take(dhcp, OS, address)
    reply = ask(
        dhcp,
        MessageType.DISCOVER,
        EFI,
        mac="52:54:00:00:00:02",
        reservation=Reservation(address=str(address)),
    )
    assert decode(reply.datagram).yiaddr != address
    assert EventKind.ALARM in [event.kind for event in reply.events]


def test_inform_is_answered_without_an_address_or_times() -> None:
    reply = ask(server(), MessageType.INFORM, OS, ciaddr=IPv4Address("10.0.0.7"))
    packet = decode(reply.datagram)
    assert packet.message_type is MessageType.ACK
    assert packet.yiaddr == IPv4Address(0)
    assert Option.LEASE_SECONDS not in packet.options
    assert reply.to == ("10.0.0.7", 68)


def test_release_and_decline_are_heard_without_an_answer() -> None:
    dhcp = server()
    address = offer(dhcp, OS).yiaddr
    take(dhcp, OS, address)
    released = ask(dhcp, MessageType.RELEASE, OS, ciaddr=address)
    assert (released.datagram, released.events[0].kind) == (b"", EventKind.RELEASE)
    address = offer(dhcp, OS).yiaddr
    declined = ask(dhcp, MessageType.DECLINE, {**OS, Option.REQUESTED_ADDRESS: address.packed})
    assert (declined.datagram, declined.events[0].kind) == (b"", EventKind.DECLINE)
    assert offer(dhcp, OS, now=1).yiaddr != address


def test_an_exhausted_pool_is_told() -> None:
    dhcp = server()
    for number in range(POOL.size):
        take(dhcp, OS, POOL.first + number, mac=f"02:00:00:00:00:{number:02x}")
    reply = ask(dhcp, MessageType.DISCOVER, OS)
    assert (reply.datagram, reply.events[0].kind) == (b"", EventKind.POOL_EMPTY)


def test_proxy_adds_the_boot_file_and_never_an_address() -> None:
    offered = offer(server(Mode.PROXY), EFI)
    assert offered.yiaddr == IPv4Address(0)
    assert offered.options[Option.VENDOR_CLASS] == b"PXEClient"
    assert offered.options[Option.VENDOR_SPECIFIC] == b"\x06\x01\x08\xff"
    assert offered.file == offered.options[Option.BOOT_FILE] == b"snponly.efi"
    assert Option.LEASE_SECONDS not in offered.options
    assert Option.SUBNET_MASK not in offered.options


@pytest.mark.parametrize("kind", MessageType)
def test_proxy_is_silent_towards_everything_that_does_not_boot(kind: MessageType) -> None:
    assert ask(server(Mode.PROXY), kind, OS) == Reply()


def test_proxy_leaves_requests_on_port_67_to_the_sites_server() -> None:
    assert ask(server(Mode.PROXY), MessageType.REQUEST, EFI) == Reply()


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("kind", [MessageType.REQUEST, MessageType.INFORM])
def test_port_4011_answers_the_sender_in_either_mode(mode: Mode, kind: MessageType) -> None:
    reply = ask(server(mode), kind, EFI, port=4011, ciaddr=IPv4Address("10.0.0.55"))
    packet = decode(reply.datagram)
    assert reply.to == ("10.0.0.55", 1068)
    assert packet.message_type is MessageType.ACK
    assert packet.yiaddr == IPv4Address(0)
    assert packet.file == b"snponly.efi"
    assert packet.options[Option.VENDOR_CLASS] == b"PXEClient"


def test_ipxe_gets_its_script_through_the_proxy_too() -> None:
    assert b"/boot/ipxe?" in offer(server(Mode.PROXY), IPXE).file


@given(st.binary(max_size=600))
def test_junk_is_counted_and_dropped(junk: bytes) -> None:
    dhcp = server()
    assert dhcp.read(junk, ("10.0.0.9", 68)) is None
    assert dhcp.malformed == 1


@given(
    st.sampled_from(MessageType),
    st.dictionaries(
        st.sampled_from([12, 43, 50, 54, 55, 60, 61, 66, 67, 77, 82, 93, 97, 175]),
        st.binary(max_size=40),
        max_size=6,
    ),
    st.sampled_from([67, 4011]),
    st.sampled_from(Mode),
)
def test_no_options_make_the_server_raise_or_shout(
    kind: MessageType, options: dict[Option, bytes], port: int, mode: Mode
) -> None:
    reply = ask(server(mode), kind, options, port=port)
    if reply.datagram:
        assert decode(reply.datagram).op is Op.REPLY
        assert len(reply.datagram) <= 576  # what every client takes, and no lever for amplification


def test_replies_of_other_servers_are_not_read() -> None:
    packet = Packet(op=Op.REPLY, message_type=MessageType.OFFER, xid=1, mac=MAC)
    assert server().read(encode(packet), ("10.0.0.9", 67)) is None


def test_every_fault_of_a_configuration_is_told_at_once() -> None:
    good = DhcpConfig(server_address=SERVER, network=NETWORK, pool=POOL)
    with pytest.raises(InvalidError) as caught:
        replace(
            good,
            server_address=IPv4Address("10.0.0.0"),
            router=IPv4Address("192.0.2.1"),
            pool=Pool(IPv4Address("10.0.0.250"), IPv4Address("10.0.1.5")),
            lease_s=1,
        )
    assert len(caught.value.faults) == 4
