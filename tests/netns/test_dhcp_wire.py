"""Our DHCP towards real clients, and clients built by scapy, over a real bridge."""

from __future__ import annotations

import itertools
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_RA, ICMPv6ND_RS, IPv6
from scapy.layers.l2 import Ether

from cloner_core.errors import RefusedError
from cloner_pxe.dhcp import Mode
from cloner_pxe.dhcp_leases import Reservation
from cloner_pxe.events import EventKind
from netns.netboot_lab import CLIENT_LINK, NetbootLab, inside, lab_with_client, udp_socket
from vmlab.lab import SERVER_ADDRESS, Lab

pytestmark = pytest.mark.netns
MAC = "52:54:00:12:34:56"
ETH_P_ALL = 3
Options = list[tuple[str, object]]
EFI: Options = [("vendor_class_id", b"PXEClient:Arch:00007:UNDI:003016"), ("pxe_client_architecture", b"\0\7")]
BIOS: Options = [("vendor_class_id", b"PXEClient:Arch:00000:UNDI:002001"), ("pxe_client_architecture", b"\0\0")]
IPXE: Options = [*EFI, ("user_class", b"iPXE")]
HTTP: Options = [
    ("vendor_class_id", b"HTTPClient:Arch:00016:UNDI:003001"),
    ("pxe_client_architecture", b"\0\x10"),
]
_xids = itertools.count(1000)


@pytest.fixture(scope="module")
def labs() -> Iterator[tuple[Lab, Lab]]:
    with lab_with_client() as both:
        yield both


@pytest.fixture(scope="module")
def server(labs: tuple[Lab, Lab]) -> Iterator[NetbootLab]:
    with NetbootLab(labs[0], reservations={MAC: Reservation(address="10.77.0.42", hostname="node01")}) as running:
        yield running


@pytest.fixture
def wire(labs: tuple[Lab, Lab]) -> Iterator[socket.socket]:
    with inside(labs[1].name):
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        opened.bind((CLIENT_LINK, 0))
    with opened:
        yield opened


def exchange(wire: socket.socket, kind: str, options: Options, *, mac: str = MAC, seconds: float = 3) -> BOOTP | None:
    """Send one DHCP message as firmware does, each second anew, until a reply comes; None when none does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for reply in _asked(wire, kind, options, mac):
            return reply
    return None


def _asked(wire: socket.socket, kind: str, options: Options, mac: str) -> Iterator[BOOTP]:
    """Send one DHCP message and give the replies that come within a second."""
    xid = next(_xids)
    wire.send(
        bytes(
            Ether(src=mac, dst="ff:ff:ff:ff:ff:ff")
            / IP(src="0.0.0.0", dst="255.255.255.255")
            / UDP(sport=68, dport=67)
            / BOOTP(chaddr=bytes.fromhex(mac.replace(":", "")), xid=xid)
            / DHCP(options=[("message-type", kind), *options, "end"])
        )
    )
    for frame in _frames(wire, 1):
        if BOOTP in frame and frame[BOOTP].op == 2 and frame[BOOTP].xid == xid:
            yield frame[BOOTP]


def _frames(wire: socket.socket, seconds: float) -> Iterator[Ether]:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        wire.settimeout(left)
        try:
            yield Ether(wire.recv(2048))
        except TimeoutError:
            return


def options_of(reply: BOOTP) -> dict[object, object]:
    return {option[0]: option[1] for option in reply[DHCP].options if isinstance(option, tuple)}


BOUND = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip address add $ip/24 dev $interface
echo "$ip $lease $serverid" >"$0.got"
"""


def test_busybox_gets_an_address_and_gives_it_back(labs: tuple[Lab, Lab], server: NetbootLab) -> None:
    client = labs[1]
    script, got = client.directory / "bound", client.directory / "bound.got"
    script.write_text(BOUND)
    script.chmod(0o755)
    udhcpc = client.popen(["busybox", "udhcpc", "-i", CLIENT_LINK, "-f", "-R", "-T", "1", "-s", script])
    wait_until(got.exists)
    client.stop(udhcpc)  # with -R it gives the address back at its end
    wait_until(lambda: EventKind.RELEASE in server.kinds())
    client.run(["ip", "address", "flush", "dev", CLIENT_LINK])
    address, lease_s, server_id = got.read_text().split()
    assert address.startswith("10.77.0.1")
    assert (lease_s, server_id) == ("3600", SERVER_ADDRESS)


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


ROWS = [
    pytest.param(EFI, b"snponly.efi", id="x64 uefi"),
    pytest.param(BIOS, b"undionly.kpxe", id="bios"),
    pytest.param(IPXE, b"http://10.77.0.1:8080/boot/ipxe?mac=52-54-00-12-34-56&platform=efi", id="ipxe"),
    pytest.param(HTTP, b"http://10.77.0.1:8080/boot/loader/snponly.efi", id="http boot"),
]


@pytest.mark.parametrize(("options", "file"), ROWS)
def test_a_boot_client_gets_address_and_boot_file(
    server: NetbootLab, wire: socket.socket, options: Options, file: bytes
) -> None:
    offer = exchange(wire, "discover", options)
    assert offer is not None
    chosen = [("server_id", SERVER_ADDRESS), ("requested_addr", offer.yiaddr)]
    ack = exchange(wire, "request", [*options, *chosen])
    assert ack is not None
    assert options_of(ack)["message-type"] == 5
    assert ack.yiaddr == "10.77.0.42"
    assert ack.file.rstrip(b"\0") == file
    assert options_of(ack)["boot-file-name"] == file
    assert options_of(ack)["hostname"] == b"node01"


def test_port_4011_answers_in_authoritative_mode(labs: tuple[Lab, Lab], server: NetbootLab) -> None:
    with udp_socket(labs[1], "10.77.0.7") as opened:
        opened.sendto(
            bytes(
                BOOTP(chaddr=bytes.fromhex(MAC.replace(":", "")), ciaddr="10.77.0.7", xid=4011)
                / DHCP(options=[("message-type", "request"), *EFI, "end"])
            ),
            (SERVER_ADDRESS, 4011),
        )
        reply = BOOTP(opened.recv(2048))
    assert (reply.xid, reply.yiaddr) == (4011, "0.0.0.0")
    assert reply.file.rstrip(b"\0") == b"snponly.efi"
    assert options_of(reply)["vendor_class_id"] == b"PXEClient"


def test_a_second_server_refuses_to_start_and_names_the_first(labs: tuple[Lab, Lab], server: NetbootLab) -> None:
    client = labs[1]
    client.run(["ip", "address", "replace", "10.77.0.8/24", "dev", CLIENT_LINK])
    second = NetbootLab(client, interface=CLIENT_LINK, address="10.77.0.8", beside_another=False)
    with pytest.raises(RefusedError, match=r"another DHCP server answers on client0: 10\.77\.0\.1 "), second:
        pytest.fail("it served")


def test_a_proxy_starts_beside_it_and_never_gives_an_address(
    labs: tuple[Lab, Lab], server: NetbootLab, wire: socket.socket
) -> None:
    client = labs[1]
    client.run(["ip", "address", "replace", "10.77.0.8/24", "dev", CLIENT_LINK])
    with NetbootLab(client, interface=CLIENT_LINK, address="10.77.0.8", beside_another=False, mode=Mode.PROXY) as proxy:
        # Seen from the server's side of the bridge, where both servers hear the client.
        with inside(labs[0].name):
            opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            opened.bind(("br0", 0))
        with opened:
            replies = _asked(opened, "discover", EFI, "52:54:00:00:00:77")
            found = {options_of(reply)["server_id"]: reply for reply in replies}
    assert EventKind.OFFER in proxy.kinds()
    assert found["10.77.0.8"].yiaddr == "0.0.0.0"
    assert found["10.77.0.8"].file.rstrip(b"\0") == b"snponly.efi"


def test_a_taken_port_is_an_error_with_a_hint(labs: tuple[Lab, Lab], server: NetbootLab) -> None:
    with pytest.raises(RefusedError, match="DHCP cannot serve on br0"), NetbootLab(labs[0]):
        pytest.fail("it served")


def test_junk_costs_no_memory_and_real_clients_are_still_served(
    labs: tuple[Lab, Lab], server: NetbootLab, wire: socket.socket
) -> None:
    def resident_kib() -> int:
        match = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
        assert match
        return int(match[1])

    with udp_socket(labs[1], "10.77.0.7") as opened:
        before = server.dhcp.malformed
        for turn in range(2):  # the first turn warms what is allocated once
            baseline = resident_kib()
            for number in range(5000):
                opened.sendto(os.urandom(200 + number % 400), (SERVER_ADDRESS, 67 if number % 2 else 4011))
            assert exchange(wire, "discover", EFI, seconds=10) is not None, f"turn {turn}"
    assert server.dhcp.malformed > before
    assert resident_kib() - baseline < 8192


def test_a_router_solicitation_is_answered_with_no_router(server: NetbootLab, wire: socket.socket) -> None:
    deadline = time.monotonic() + 15  # the bridge needs a moment to own its link-local address
    while time.monotonic() < deadline:
        solicitation = IPv6(src="fe80::5054:ff:fe12:3456", dst="ff02::2", hlim=255) / ICMPv6ND_RS()
        wire.send(bytes(Ether(src=MAC, dst="33:33:00:00:00:02") / solicitation))
        for frame in _frames(wire, 0.5):
            if ICMPv6ND_RA in frame:
                assert (frame[ICMPv6ND_RA].routerlifetime, frame[IPv6].hlim) == (0, 255)
                return
    pytest.fail("no advertisement came")


def test_the_relay_is_told_at_every_request(wire: socket.socket, server: NetbootLab) -> None:
    mac = "52:54:00:12:34:77"

    def relays() -> list[str]:
        return [event.address for event in server.events if event.kind is EventKind.RELAY and event.mac == mac]

    # A relay of our own network is answered, one of another is told all the same.
    for number, relay in enumerate(("10.77.0.77", "10.77.0.77", "10.9.0.1", "0.0.0.0")):
        request = (
            Ether(src=mac, dst="ff:ff:ff:ff:ff:ff")
            / IP(src="0.0.0.0", dst="255.255.255.255")
            / UDP(sport=68, dport=67)
            / BOOTP(chaddr=bytes.fromhex(mac.replace(":", "")), xid=number, giaddr=relay)
            / DHCP(options=[("message-type", "discover"), *EFI, "end"])
        )
        wire.send(bytes(request))
    end = time.monotonic() + 10
    while len(relays()) < 4:
        assert time.monotonic() < end, relays()
        time.sleep(0.02)
    assert relays() == ["10.77.0.77", "10.77.0.77", "10.9.0.1", ""]
