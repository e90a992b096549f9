"""Runs a DhcpServer on one interface: sockets on ports 67 and 4011, inside the server's asyncio loop.

Must not decide: it asks the BootDirectory. Junk is dropped where it is received; what remains goes through one bounded
queue, so a flood costs packets, never memory.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Callable

from cloner_core.errors import ClonerError, RefusedError
from cloner_pxe.dhcp import DhcpServer, Inquiry, Mode, Reply
from cloner_pxe.dhcp_packet import NO_ADDRESS, PXE_PORT, SERVER_PORT
from cloner_pxe.dhcp_probe import OtherServer, find_other_servers
from cloner_pxe.directory import BootDirectory
from cloner_pxe.events import EventKind, EventSink, NetbootEvent

log = logging.getLogger(__name__)

WATCH_S = 55.0  # with the probe's own 3 s, a foreign server is told within a minute
_QUEUE_PACKETS = 256
_PACKETS_A_TURN = 64
_RECEIVE_BYTES = 1 << 20  # a rack that is switched on at once fits


class DhcpService:
    """One interface's DHCP, from `start` to `stop`."""

    def __init__(
        self,
        interface: str,
        server: DhcpServer,
        directory: BootDirectory,
        emit: EventSink,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._interface = interface
        self._server = server
        self._directory = directory
        self._emit = emit
        self._clock = clock
        self._queue: asyncio.Queue[tuple[Inquiry, int]] = asyncio.Queue(_QUEUE_PACKETS)
        self._sockets: dict[int, socket.socket] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._probe_mac = ""
        self.overflowed = 0  # packets dropped because the queue was full

    @property
    def malformed(self) -> int:
        """Packets dropped because they were not DHCP."""
        return self._server.malformed

    async def start(self, *, beside_another: bool = False) -> None:
        """Open the sockets and serve.

        Raises RefusedError when another DHCP server answers on the interface (an authoritative server only, unless
        `beside_another`), or the interface lacks the server's address, or a port is taken.
        """
        await self._refuse_beside_another(beside_another)
        try:
            self._check_address()
            for port in (SERVER_PORT, PXE_PORT):
                self._open(port)
        except OSError as fault:
            await self.stop()
            raise RefusedError(
                f"DHCP cannot serve on {self._interface}: {fault}",
                hint="is the interface up, has it the server's address, does another DHCP server run here?",
            ) from fault
        self._tasks = [asyncio.create_task(self._serve()), asyncio.create_task(self._watch())]

    async def stop(self) -> None:
        """Close the sockets and wait for the tasks to end."""
        for opened in self._sockets.values():
            asyncio.get_running_loop().remove_reader(opened.fileno())
            opened.close()
        self._sockets = {}
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _refuse_beside_another(self, beside_another: bool) -> None:
        if beside_another or self._server.config.mode is Mode.PROXY:
            return
        others = [other for other in await self._probe() if other.gives_addresses]
        if others:
            raise RefusedError(
                f"another DHCP server answers on {self._interface}: {', '.join(o.address for o in others)}",
                hint="stop it, or serve boot files beside it in proxy mode",
            )

    def _check_address(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((str(self._server.config.server_address), 0))

    def _open(self, port: int) -> None:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._interface.encode())
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
            # No SO_REUSEADDR: a second server on this port of this machine must be an error.
            opened.bind(("", port))
        except OSError:
            opened.close()
            raise
        self._sockets[port] = opened
        asyncio.get_running_loop().add_reader(opened.fileno(), self._receive, opened, port)

    def _receive(self, opened: socket.socket, port: int) -> None:
        for _ in range(_PACKETS_A_TURN):
            try:
                datagram, source = opened.recvfrom(65535)
            except BlockingIOError:
                return
            except OSError as fault:  # an ICMP error of an earlier reply comes back here
                log.debug("port %d: %s", port, fault)
                return
            inquiry = self._server.read(datagram, source, port=port)
            # Linux loops our own broadcasts back to us; answering our probe would burn an address.
            if inquiry is None or inquiry.packet.mac == self._probe_mac:
                continue
            try:
                self._queue.put_nowait((inquiry, port))
            except asyncio.QueueFull:
                self.overflowed += 1

    async def _serve(self) -> None:
        while True:
            inquiry, port = await self._queue.get()
            mac = inquiry.packet.mac
            try:
                answer = await self._directory.lookup(mac, inquiry.request)
                reservation = await self._directory.reservation(mac)
                # In a thread: the lease store writes to a disk, and the loop serves everybody.
                reply = await asyncio.to_thread(self._server.reply, inquiry, answer, reservation, self._clock())
            except ClonerError as fault:
                log.error("no DHCP answer for %s: %s", mac, fault)  # the machine asks again within seconds
                continue
            except Exception:  # one machine's fault must not end everybody's DHCP
                log.exception("no DHCP answer for %s", mac)
                continue
            self._send(reply, port)
            self._tell(reply)
            self._tell_relay(inquiry)
            if answer.alarm:
                self._emit(NetbootEvent(kind=EventKind.ALARM, mac=mac, text=answer.alarm))

    def _send(self, reply: Reply, port: int) -> None:
        if not reply.datagram:
            return
        try:
            self._sockets[port].sendto(reply.datagram, reply.to)
        except (OSError, KeyError) as fault:  # KeyError: stopped meanwhile
            log.warning("reply to %s:%d not sent: %s", *reply.to, fault)

    def _tell(self, reply: Reply) -> None:
        for event in reply.events:
            self._emit(event)

    def _tell_relay(self, inquiry: Inquiry) -> None:
        """Tell through which relay a machine asks, each time: only who keeps it knows whether it is new to him."""
        packet = inquiry.packet
        if packet.ciaddr != NO_ADDRESS and packet.giaddr == NO_ADDRESS:
            return  # with an address it asks us directly, past its relay (RFC 2131 §4.3.2)
        relay = "" if packet.giaddr == NO_ADDRESS else str(packet.giaddr)
        text = f"asks through the relay {relay}" if relay else "asks without a relay"
        self._emit(NetbootEvent(kind=EventKind.RELAY, mac=packet.mac, address=relay, text=text))

    async def _probe(self) -> tuple[OtherServer, ...]:
        # Locally administered, and another one each time: two Cloner servers must see each other.
        self._probe_mac = (b"\x02" + secrets.token_bytes(5)).hex(":")
        own = str(self._server.config.server_address)
        others = await find_other_servers(self._interface, self._probe_mac)
        return tuple(other for other in others if other.address != own)

    async def _watch(self) -> None:
        """Raise an alarm for each foreign server, each minute it is seen, and once when nobody can look any more."""
        is_blind = False
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                others = await self._probe()
            except ClonerError as fault:
                if not is_blind:
                    text = f"another DHCP server would go unseen: {fault.message}"
                    self._emit(NetbootEvent(kind=EventKind.OTHER_DHCP, text=text))
                is_blind = True
                continue
            is_blind = False
            for other in others:
                if other.gives_addresses and self._server.config.mode is Mode.PROXY:
                    continue  # the site's own, beside which we stand
                what = "gives addresses" if other.gives_addresses else "offers boot files"
                text = f"another DHCP server, {other.address}, {what} on {self._interface}"
                self._emit(NetbootEvent(kind=EventKind.OTHER_DHCP, address=other.address, text=text))
