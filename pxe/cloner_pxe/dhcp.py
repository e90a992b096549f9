"""The DHCP server as a state machine without sockets or clock (RFC 2131 §4.3), and the PXE parts of its replies.

Two modes: *authoritative* gives addresses and boot files; *proxy* stands beside a site's own DHCP and adds the boot
file alone. What is booted is not decided here: `read` makes a BootRequest of a packet, the caller asks the decision,
`reply` puts the answer into the fields where each firmware looks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network

from cloner_core.errors import InvalidError
from cloner_pxe.decision import AnyAnswer, HttpBootUri, Loader
from cloner_pxe.dhcp_boot import IPXE_NO_PROXY, PXE_VENDOR, boot_request, with_boot
from cloner_pxe.dhcp_leases import Addresses, LeaseStore, Pool, Reservation
from cloner_pxe.dhcp_packet import (
    BROADCAST,
    CLIENT_PORT,
    NO_ADDRESS,
    PXE_PORT,
    SERVER_PORT,
    MalformedPacketError,
    MessageType,
    Op,
    Option,
    Packet,
    decode,
    encode,
)
from cloner_pxe.events import Asker, EventKind, NetbootEvent
from cloner_pxe.request import BootRequest, Route


class Mode(StrEnum):
    AUTHORITATIVE = "authoritative"
    PROXY = "proxy"


@dataclass(frozen=True, slots=True, kw_only=True)
class DhcpConfig:
    """What the server is told at start; every fault is reported at once by InvalidError."""

    server_address: IPv4Address
    network: IPv4Network
    pool: Pool | None = None  # None: machines with a reservation get an address, nobody else
    mode: Mode = Mode.AUTHORITATIVE
    lease_s: int = 3600
    router: IPv4Address | None = None  # None: the network leads nowhere
    dns: tuple[IPv4Address, ...] = ()

    def __post_init__(self) -> None:
        ends = (self.network.network_address, self.network.broadcast_address)
        faults = [
            f"{name} {address} is not a host address of {self.network}"
            for name, address in (
                ("server", self.server_address),
                ("pool start", self.pool.first if self.pool else self.server_address),
                ("pool end", self.pool.last if self.pool else self.server_address),
                ("router", self.router or self.server_address),
            )
            if address not in self.network or address in ends
        ]
        if not 60 <= self.lease_s <= 1 << 31:
            faults.append(f"lease of {self.lease_s} s, wanted 60 s or more")
        if faults:
            raise InvalidError("the DHCP configuration is wrong", faults=faults)


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A packet that wants an answer, and what it says about booting."""

    packet: Packet
    request: BootRequest
    source: tuple[str, int]


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes out: nothing when `datagram` is empty, and the events that happened."""

    datagram: bytes = b""
    to: tuple[str, int] = ("", 0)
    events: tuple[NetbootEvent, ...] = ()


class DhcpServer:
    """One network's DHCP. Not thread-safe: one caller at a time."""

    def __init__(self, config: DhcpConfig, leases: LeaseStore) -> None:
        self.config = config
        self.malformed = 0
        never = frozenset({config.server_address} | ({config.router} if config.router else set()))
        self._addresses = Addresses(config.pool, leases, lease_s=config.lease_s, never=never)

    def read(self, datagram: bytes, source: tuple[str, int], *, port: int = SERVER_PORT) -> Inquiry | None:
        """Return what `datagram` asks; None for what is malformed (counted) or not for a server.

        `port` is ours, 67 or 4011: it tells the route.
        """
        try:
            packet = decode(datagram)
        except MalformedPacketError:
            self.malformed += 1
            return None
        if packet.op is not Op.REQUEST:
            return None
        is_proxy = self.config.mode is Mode.PROXY or port == PXE_PORT
        request = boot_request(packet, Route.PROXYDHCP if is_proxy else Route.DHCP)
        if is_proxy and not request.wants_boot:
            return None
        return Inquiry(packet, request, source if port == PXE_PORT else ("", 0))

    def reply(self, inquiry: Inquiry, answer: AnyAnswer, reservation: Reservation | None, now: float) -> Reply:
        """Return the reply to `inquiry`, binding the address it acknowledges."""
        packet, reply = inquiry.packet, Reply()
        if any(one != NO_ADDRESS and one not in self.config.network for one in (packet.giaddr, packet.ciaddr)):
            return reply  # a network we have no addresses for; and nobody makes us send elsewhere
        if inquiry.request.route is Route.PROXYDHCP:
            return self._proxy(inquiry, answer)
        match packet.message_type:
            case MessageType.DISCOVER:
                reply = self._offer(packet, answer, reservation, now)
            case MessageType.REQUEST:
                reply = self._request(packet, answer, reservation, now)
            case MessageType.INFORM:
                reply = self._send(packet, MessageType.ACK, answer, reservation, NO_ADDRESS)
            case MessageType.RELEASE:
                reply = self._release(packet)
            case MessageType.DECLINE:
                reply = self._decline(packet, now)
        return reply

    def _offer(self, packet: Packet, answer: AnyAnswer, reservation: Reservation | None, now: float) -> Reply:
        wanted = packet.address(Option.REQUESTED_ADDRESS)
        address = self._addresses.offer(packet.mac, reservation, wanted, now)
        if address is None:
            pool = self.config.pool
            text = f"no free address in {pool.first}–{pool.last}" if pool else "no reservation, and there is no pool"
            return Reply(events=(_event(EventKind.POOL_EMPTY, packet, NO_ADDRESS, text),))
        reply = self._send(packet, MessageType.OFFER, answer, reservation, address)
        if reservation is not None and str(address) != reservation.address:
            text = f"reserved address {reservation.address} is held by another machine, {address} offered"
            alarm = _event(EventKind.ALARM, packet, address, text)
            return replace(reply, events=(*reply.events, alarm))
        return reply

    def _request(self, packet: Packet, answer: AnyAnswer, reservation: Reservation | None, now: float) -> Reply:
        chosen = packet.address(Option.SERVER_ID)
        if chosen is not None and chosen != self.config.server_address:
            self._addresses.forget_offer(packet.mac)
            text = f"took the offer of another server, {chosen}"
            return Reply(events=(_event(EventKind.OTHER_DHCP, packet, NO_ADDRESS, text),))
        address = packet.address(Option.REQUESTED_ADDRESS) or packet.ciaddr
        if not self._addresses.may_bind(packet.mac, address, reservation, now):
            return self._refuse(packet, address)
        self._addresses.bind(packet.mac, address, now)
        return self._send(packet, MessageType.ACK, answer, reservation, address)

    def _refuse(self, packet: Packet, address: IPv4Address) -> Reply:
        # A NAK is broadcast (RFC 2131 §4.3.2), behind a relay with the flag set so that the relay does so too.
        text = f"{address} is not for this machine"
        nak = Packet(
            op=Op.REPLY,
            message_type=MessageType.NAK,
            xid=packet.xid,
            mac=packet.mac,
            flags=packet.flags | (0x8000 if packet.giaddr != NO_ADDRESS else 0),
            giaddr=packet.giaddr,
            options={
                Option.SERVER_ID: self.config.server_address.packed,
                Option.MESSAGE: text.encode(),
                **_echoed(packet),
            },
        )
        to = _destination(replace(packet, ciaddr=NO_ADDRESS))
        return Reply(encode(nak), to, (_event(EventKind.NAK, packet, NO_ADDRESS, text),))

    def _release(self, packet: Packet) -> Reply:
        if not self._addresses.release(packet.mac, packet.ciaddr):
            return Reply()
        return Reply(events=(_event(EventKind.RELEASE, packet, packet.ciaddr, "address released"),))

    def _decline(self, packet: Packet, now: float) -> Reply:
        address = packet.address(Option.REQUESTED_ADDRESS)
        if address is None or not self._addresses.decline(packet.mac, address, now):
            return Reply()
        text = f"{address} is in use by somebody we do not know; set aside for 10 minutes"
        return Reply(events=(_event(EventKind.DECLINE, packet, address, text),))

    def _send(
        self,
        packet: Packet,
        kind: MessageType,
        answer: AnyAnswer,
        reservation: Reservation | None,
        address: IPv4Address,
    ) -> Reply:
        config = self.config
        options: dict[int, bytes] = {
            Option.SERVER_ID: config.server_address.packed,
            Option.SUBNET_MASK: config.network.netmask.packed,
            Option.BROADCAST_ADDRESS: config.network.broadcast_address.packed,
        }
        if packet.message_type is not MessageType.INFORM:  # RFC 2131 §4.3.5: no lease times then
            options[Option.LEASE_SECONDS] = config.lease_s.to_bytes(4, "big")
            options[Option.RENEWAL_SECONDS] = (config.lease_s // 2).to_bytes(4, "big")
            options[Option.REBINDING_SECONDS] = (config.lease_s * 7 // 8).to_bytes(4, "big")
        if config.router is not None:
            options[Option.ROUTER] = config.router.packed
        if config.dns:
            options[Option.DNS] = b"".join(server.packed for server in config.dns)
        if reservation is not None and reservation.hostname:
            options[Option.HOST_NAME] = reservation.hostname.encode()[:64]
        if boot_request(packet, Route.DHCP).is_ipxe:
            options[Option.IPXE] = IPXE_NO_PROXY
        # No option 60 towards PXE firmware here: with it EDK2 would go on to port 4011.
        sent = with_boot(
            Packet(
                op=Op.REPLY,
                message_type=kind,
                xid=packet.xid,
                mac=packet.mac,
                flags=packet.flags,
                ciaddr=packet.ciaddr if kind is MessageType.ACK else NO_ADDRESS,
                yiaddr=address,
                giaddr=packet.giaddr,
                options={**options, **_echoed(packet)},
            ),
            answer,
        )
        event = EventKind.OFFER if kind is MessageType.OFFER else EventKind.ACK
        given = address if address != NO_ADDRESS else packet.ciaddr
        return Reply(encode(sent), _destination(packet), (_event(event, packet, given, answer.why, _asker(packet)),))

    def _proxy(self, inquiry: Inquiry, answer: AnyAnswer) -> Reply:
        packet, is_port_4011 = inquiry.packet, inquiry.source != ("", 0)
        kinds = {MessageType.DISCOVER: MessageType.OFFER}
        if is_port_4011:
            kinds |= {MessageType.REQUEST: MessageType.ACK, MessageType.INFORM: MessageType.ACK}
        kind = kinds.get(packet.message_type)
        if kind is None or not isinstance(answer, Loader | HttpBootUri):
            return Reply()  # the rest is between the machine and the site's own server
        options: dict[int, bytes] = {Option.SERVER_ID: self.config.server_address.packed, **_echoed(packet)}
        if isinstance(answer, Loader):
            options |= {Option.VENDOR_CLASS: b"PXEClient", Option.VENDOR_SPECIFIC: PXE_VENDOR}
        sent = with_boot(
            Packet(
                op=Op.REPLY,
                message_type=kind,
                xid=packet.xid,
                mac=packet.mac,
                flags=packet.flags,
                ciaddr=packet.ciaddr if is_port_4011 else NO_ADDRESS,
                giaddr=packet.giaddr,
                options=options,
            ),
            answer,
        )
        to = inquiry.source if is_port_4011 else _destination(replace(packet, ciaddr=NO_ADDRESS))
        event = EventKind.OFFER if kind is MessageType.OFFER else EventKind.ACK
        text = f"proxy: {answer.why}"
        return Reply(encode(sent), to, (_event(event, packet, packet.ciaddr, text, _asker(packet)),))


def _echoed(packet: Packet) -> dict[int, bytes]:
    """Options a reply repeats: the client identifier (RFC 6842) and the machine UUID (PXE 2.1 §2.2.1)."""
    return {
        code: value
        for code in (Option.CLIENT_ID, Option.MACHINE_UUID)
        if 0 < len(value := packet.options.get(code, b"")) <= 64
    }


def _destination(packet: Packet) -> tuple[str, int]:
    """Where a reply goes (RFC 2131 §4.1).

    Always broadcast to a machine without an address, flag or not: it cannot answer ARP yet, and every client
    takes a broadcast.
    """
    if packet.giaddr != NO_ADDRESS:
        return str(packet.giaddr), SERVER_PORT
    if packet.ciaddr != NO_ADDRESS:
        return str(packet.ciaddr), CLIENT_PORT
    return str(BROADCAST), CLIENT_PORT


def _asker(packet: Packet) -> Asker:
    request = boot_request(packet, Route.DHCP)
    if request.is_ipxe:
        return Asker.IPXE
    return Asker.FIRMWARE if request.wants_boot else Asker.SYSTEM


def _event(
    kind: EventKind, packet: Packet, address: IPv4Address, text: str, asker: Asker | None = None
) -> NetbootEvent:
    shown = "" if address == NO_ADDRESS else str(address)
    return NetbootEvent(kind=kind, mac=packet.mac, address=shown, text=text, asker=asker)
