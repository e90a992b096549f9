"""Our TFTP towards real clients and towards hostile ones, over a real bridge."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloner_pxe.decision import LocalMethod, Netboot, NodeBoot
from cloner_pxe.events import EventKind
from cloner_pxe.tftp import TRANSFERS_PER_ADDRESS, TftpService
from netns.netboot_lab import NetbootLab, inside, lab_with_client, udp_socket
from vmlab.errors import LabError
from vmlab.lab import SERVER_ADDRESS, Lab

pytestmark = pytest.mark.netns
MAC = "52:54:00:12:34:56"
LOADER = Path("/usr/lib/ipxe/snponly.efi")
CLIENT = "10.77.0.9"
TFTP = (SERVER_ADDRESS, 69)
DATA, ACK, ERROR, OACK = 3, 4, 5, 6


@pytest.fixture(scope="module")
def labs() -> Iterator[tuple[Lab, Lab]]:
    with lab_with_client() as both:
        yield both


@pytest.fixture(scope="module")
def server(labs: tuple[Lab, Lab]) -> Iterator[NetbootLab]:
    node = NodeBoot(name="node01", netboot=Netboot.LOCAL, local_method=LocalMethod.GRUB_CHAIN)
    with NetbootLab(labs[0], nodes={MAC: node}) as running:
        yield running


@pytest.fixture
def client(labs: tuple[Lab, Lab], server: NetbootLab) -> Iterator[socket.socket]:
    with udp_socket(labs[1], CLIENT) as opened:
        yield opened


def read_request(name: bytes, options: bytes = b"") -> bytes:
    return b"\0\1" + name + b"\0octet\0" + options


def fetch(
    client: socket.socket,
    name: bytes,
    options: bytes = b"",
    *,
    lose: frozenset[int] = frozenset(),
    server: tuple[str, int] = TFTP,
) -> bytes:
    """Fetch a file as a plain client does; blocks in `lose` are taken for lost the first time they come."""
    client.sendto(read_request(name, options), server)
    content, wanted, lost = b"", 1, set(lose)
    block_bytes = 512
    while True:
        datagram, peer = client.recvfrom(2048)
        opcode, block = struct.unpack_from("!HH", datagram)
        if opcode == ERROR:
            raise FileNotFoundError(datagram[4:-1].decode())
        if opcode == OACK:
            block_bytes = int(datagram[2:].split(b"\0")[1]) if datagram[2:].startswith(b"blksize") else 512
            client.sendto(struct.pack("!HH", ACK, 0), peer)
            continue
        assert opcode == DATA
        if block in lost:
            lost.discard(block)
            continue
        if block == wanted & 0xFFFF:
            content += datagram[4:]
            wanted += 1
        client.sendto(struct.pack("!HH", ACK, block), peer)
        if len(datagram) - 4 < block_bytes:
            return content


def test_curl_and_busybox_fetch_the_loader_whole(
    labs: tuple[Lab, Lab], server: NetbootLab, client: socket.socket
) -> None:
    folder = labs[1].directory
    labs[1].run(["curl", "-s", "-o", folder / "curl.efi", f"tftp://{SERVER_ADDRESS}//snponly.efi"])
    labs[1].run(
        ["busybox", "tftp", "-g", "-b", "1432", "-r", "snponly.efi", "-l", folder / "busybox.efi", SERVER_ADDRESS]
    )
    assert (folder / "curl.efi").read_bytes() == (folder / "busybox.efi").read_bytes() == LOADER.read_bytes()
    ends_s = time.monotonic() + 20.0  # a server hears of the end after the client
    while server.kinds().count(EventKind.TFTP_DONE) < 2:
        assert time.monotonic() < ends_s, server.kinds()
        time.sleep(0.02)


def test_a_file_beyond_65535_blocks_of_8_bytes_is_whole(labs: tuple[Lab, Lab], client: socket.socket) -> None:
    content = random.Random(1).randbytes(8 * 65537 + 3)
    with inside(labs[0].name):
        service = TftpService({"big": content}, lambda event: None, port=6969)
        service.start()
    try:
        assert fetch(client, b"big", b"blksize\x008\0", server=(SERVER_ADDRESS, 6969)) == content
    finally:
        service.stop()


def test_only_options_that_were_asked_for_are_granted(client: socket.socket) -> None:
    size = b"%d" % LOADER.stat().st_size
    for options, granted in (
        (b"tsize\x000\0", b"\0\6tsize\0" + size + b"\0"),
        (b"blksize\x001432\0windowsize\x004\0", b"\0\6blksize\x001432\0"),
    ):
        client.sendto(read_request(b"snponly.efi", options), TFTP)
        datagram, peer = client.recvfrom(2048)
        assert datagram == granted
        client.sendto(b"\0\5\0\x08aborted\0", peer)  # as EDK2 does when it only wanted the size


def test_what_is_not_on_the_list_is_refused_at_once(labs: tuple[Lab, Lab], client: socket.socket) -> None:
    with pytest.raises(FileNotFoundError):
        fetch(client, b"revocations_sbat.efi")
    with pytest.raises(LabError):
        labs[1].run(["busybox", "tftp", "-p", "-l", "/etc/hostname", "-r", "snponly.efi", SERVER_ADDRESS])
    assert LOADER.read_bytes()[:2] == b"MZ"


def test_ten_thousand_mutated_names_read_nothing_and_end_nothing(client: socket.socket) -> None:
    shapes = random.Random(20261120)
    seeds = [
        b"snponly.efi",
        b"../../etc/passwd",
        b"/etc/shadow",
        b"..\\..\\x",
        b"%2e%2e/etc/passwd",
        b"/dev/null/x",
        b"",
    ]
    allowed = {b"snponly.efi", b"undionly.kpxe", b"autoexec.ipxe"}
    for _ in range(10_000):
        name = bytearray(shapes.choice(seeds))
        for _ in range(shapes.randrange(1, 4)):
            at = shapes.randrange(len(name) + 1)
            name[at : at + shapes.randrange(2)] = shapes.choice(
                [b"..", b"/", b"\\", b"~", bytes((shapes.randrange(1, 256),))]
            )
        if bytes(name).lstrip(b"/") in allowed:
            continue
        client.sendto(read_request(bytes(name)), TFTP)
        assert client.recv(2048)[:4] == b"\0\5\0\1", bytes(name)
    assert fetch(client, b"snponly.efi") == LOADER.read_bytes()


# Each of the first three ends the loop tftpy itself brings; see docs/adr/0030.
HOSTILE = [
    b"\0\1snponly.efi\0octet\0blksize\0abc\0",
    b"\0\1\xff\xfe\0octet\0",
    b"\0\4a",
    b"",
    b"\0",
    b"\0\1",
    b"\0\3" + bytes(600),
    b"\0\6blksize\x001\0",
    b"\xff" * 1400,
]


def test_no_datagram_ends_the_service(client: socket.socket) -> None:
    for datagram in HOSTILE * 20:
        client.sendto(datagram, TFTP)
    shapes = random.Random(7)
    for _ in range(2000):
        client.sendto(b"\0" + shapes.randbytes(shapes.randrange(40)), TFTP)
    client.settimeout(0.3)
    try:
        while True:  # what came back for the well-formed among them
            client.recv(2048)
    except TimeoutError:
        pass
    client.settimeout(2)
    client.sendto(read_request(b"autoexec.ipxe"), TFTP)
    assert b"#!ipxe" in client.recv(2048)


def test_hostile_answers_within_a_transfer_end_at_most_that_transfer(labs: tuple[Lab, Lab], server: NetbootLab) -> None:
    for answer in (b"", b"\0", b"\0\4", b"\0\4\xff\xff", b"\0\3\0\1x", b"\0\5", b"\0\x09" + bytes(30)):
        with udp_socket(labs[1], CLIENT) as other:
            other.sendto(read_request(b"snponly.efi"), TFTP)
            _, peer = other.recvfrom(2048)
            other.sendto(answer, peer)
            other.sendto(b"\0\5\0\0\0", peer)
    with udp_socket(labs[1], CLIENT) as good:
        assert fetch(good, b"snponly.efi") == LOADER.read_bytes()


def test_a_lost_block_is_sent_again(client: socket.socket) -> None:
    lose = frozenset({2, 3})
    assert fetch(client, b"snponly.efi", b"blksize\x001432\0", lose=lose) == LOADER.read_bytes()


def test_a_request_nobody_acknowledges_costs_less_than_six_times_its_size(client: socket.socket) -> None:
    request = read_request(b"snponly.efi", b"blksize\x001432\0tsize\x000\0")
    client.sendto(request, TFTP)
    sent, end = 0, time.monotonic() + 3
    while (left := end - time.monotonic()) > 0:
        client.settimeout(left)
        try:
            sent += len(client.recv(2048))
        except TimeoutError:
            break
    assert 0 < sent <= 6 * len(request)


def test_a_repeated_request_gets_the_first_answer_again(client: socket.socket) -> None:
    request = read_request(b"snponly.efi", b"blksize\x001432\0")
    client.sendto(request, TFTP)
    first, peer = client.recvfrom(2048)
    client.sendto(request, TFTP)
    assert client.recvfrom(2048) == (first, peer)
    client.sendto(b"\0\5\0\0\0", peer)


def test_one_address_gets_a_few_transfers_and_others_still_theirs(labs: tuple[Lab, Lab], server: NetbootLab) -> None:
    greedy = [udp_socket(labs[1], "10.77.0.10") for _ in range(TRANSFERS_PER_ADDRESS + 3)]
    peers = []
    try:
        for opened in greedy:
            opened.settimeout(0.5)
            opened.sendto(read_request(b"snponly.efi"), TFTP)
            try:
                peers.append((opened, opened.recvfrom(2048)[1]))
            except TimeoutError:
                continue
        assert len(peers) == TRANSFERS_PER_ADDRESS
        with udp_socket(labs[1], "10.77.0.11") as other:
            assert fetch(other, b"snponly.efi") == LOADER.read_bytes()
    finally:
        for opened, peer in peers:
            opened.sendto(b"\0\5\0\0\0", peer)
        for opened in greedy:
            opened.close()


def test_a_stranger_cannot_speak_for_the_client(labs: tuple[Lab, Lab], client: socket.socket) -> None:
    client.sendto(read_request(b"snponly.efi", b"blksize\x001432\0"), TFTP)
    _, peer = client.recvfrom(2048)
    with udp_socket(labs[1], "10.77.0.12") as stranger:
        stranger.sendto(b"\0\5\0\0ended\0", peer)
        stranger.sendto(struct.pack("!HH", ACK, 0), peer)
    client.sendto(struct.pack("!HH", ACK, 0), peer)
    assert client.recv(2048)[:4] == struct.pack("!HH", DATA, 1)
    client.sendto(b"\0\5\0\0\0", peer)


def test_signed_grub_is_led_to_the_file_of_its_node(client: socket.socket) -> None:
    assert fetch(client, b"/grub/grub.cfg") == b"configfile /grub/nodes/$net_default_mac.cfg\n"
    assert b"chainloader" in fetch(client, b"/grub/nodes/52:54:00:12:34:56.cfg")
    with pytest.raises(FileNotFoundError):
        fetch(client, b"/grub/nodes/../../x.cfg")


def test_the_port_is_free_after_stop(labs: tuple[Lab, Lab], server: NetbootLab) -> None:
    tftp = server.tftp
    assert tftp is not None
    tftp.stop()
    with inside(labs[0].name):
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            opened.bind(("0.0.0.0", 69))
        finally:
            opened.close()
        tftp.start()
