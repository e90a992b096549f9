"""Asks an interface who else answers DHCP there.

Takes no address: it sends discoveries and listens to the offers.
"""

from __future__ import annotations

import asyncio
import secrets
import socket

import msgspec

from cloner_core.errors import RefusedError
from cloner_pxe.dhcp_packet import (
    BROADCAST,
    BROADCAST_FLAG,
    CLIENT_PORT,
    NO_ADDRESS,
    SERVER_PORT,
    MalformedPacketError,
    MessageType,
    Op,
    Option,
    Packet,
    decode,
    encode,
)

WAIT_S = 3.0
_AGAIN_S = 1.0
_MOST_SERVERS = 32


class OtherServer(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """A DHCP or ProxyDHCP server that answered."""

    address: str
    gives_addresses: bool  # False: ProxyDHCP, boot files only


def discoveries(mac: str, xid: int) -> tuple[bytes, bytes]:
    """Return two discoveries: of an operating system, and of PXE firmware, which alone ProxyDHCP answers."""
    plain: dict[int, bytes] = {Option.PARAMETERS: bytes((Option.SUBNET_MASK, Option.ROUTER, Option.SERVER_ID))}
    pxe: dict[int, bytes] = {
        **plain,
        Option.VENDOR_CLASS: b"PXEClient:Arch:00007:UNDI:003016",
        Option.ARCH: b"\0\7",
        Option.MACHINE_UUID: bytes(17),
    }
    first, second = (
        encode(
            Packet(
                op=Op.REQUEST,
                message_type=MessageType.DISCOVER,
                xid=xid,
                mac=mac,
                flags=BROADCAST_FLAG,
                options=options,
            )
        )
        for options in (plain, pxe)
    )
    return first, second


def read_offer(datagram: bytes, xid: int) -> OtherServer | None:
    """Return who made this offer; None for anything that is not an offer to the discoveries of `xid`."""
    try:
        packet = decode(datagram)
    except MalformedPacketError:
        return None
    server = packet.address(Option.SERVER_ID)
    is_offer = packet.op is Op.REPLY and packet.message_type is MessageType.OFFER and packet.xid == xid
    if not is_offer or server is None:
        return None
    return OtherServer(address=str(server), gives_addresses=packet.yiaddr != NO_ADDRESS)


async def find_other_servers(interface: str, mac: str, *, wait_s: float = WAIT_S) -> tuple[OtherServer, ...]:
    """Return the servers that answered on `interface` within `wait_s`, sorted.

    Raises RefusedError when the client's port cannot be opened there: a DHCP client runs, or the interface is missing.
    """
    loop, xid = asyncio.get_running_loop(), secrets.randbits(32)
    found: set[OtherServer] = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as opened:
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            # DHCP clients hold the port, on this interface or on all; what is broadcast comes to every socket.
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(("", CLIENT_PORT))
            end = loop.time() + wait_s
            while (left := end - loop.time()) > 0:
                # Sent again each second: a switch port may just have come up.
                for datagram in discoveries(mac, xid):
                    opened.sendto(datagram, (str(BROADCAST), SERVER_PORT))
                await _listen(opened, xid, found, min(left, _AGAIN_S))
        except OSError as fault:
            raise RefusedError(
                f"cannot ask {interface} for other DHCP servers: {fault}",
                hint="is the interface up? does a DHCP client run on it?",
            ) from fault
    return tuple(sorted(found))


async def _listen(opened: socket.socket, xid: int, found: set[OtherServer], seconds: float) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while (left := end - loop.time()) > 0:
        try:
            datagram = await asyncio.wait_for(loop.sock_recv(opened, 4096), left)
        except TimeoutError:
            return
        other = read_offer(datagram, xid)
        if other is not None and len(found) < _MOST_SERVERS:
            found.add(other)
