"""Runs the whole of netboot inside a lab's namespace, with a little HTTP server, and gives clients sockets there.

Everything runs in this process: a thread that has entered a namespace makes its sockets in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import TracebackType
from typing import Self

from cloner_pxe.boot_files import GrubFiles, tftp_files
from cloner_pxe.decision import AnyAnswer, BootPolicy, NodeBoot, decide
from cloner_pxe.dhcp import DhcpConfig, DhcpServer, Mode
from cloner_pxe.dhcp_leases import MemoryLeases, Pool, Reservation
from cloner_pxe.dhcp_service import DhcpService
from cloner_pxe.events import EventKind, NetbootEvent
from cloner_pxe.http import answer_http
from cloner_pxe.loaders import find_loaders
from cloner_pxe.request import BootRequest
from cloner_pxe.router import RouterService
from cloner_pxe.scripts import AgentBoot
from cloner_pxe.tftp import TftpService
from vmlab.lab import BRIDGE, SERVER_ADDRESS, Lab

HTTP_PORT = 8080
HTTP_BASE = f"http://{SERVER_ADDRESS}:{HTTP_PORT}"
CLIENT_LINK = "client0"
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Enter a network namespace with this thread alone; sockets made meanwhile belong to it for good."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    other = os.open(f"/run/netns/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(other)
        try:
            yield
        finally:
            _enter(own)
    finally:
        os.close(own)
        os.close(other)


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


@contextlib.contextmanager
def lab_with_client() -> Iterator[tuple[Lab, Lab]]:
    """Give a lab, and a second namespace whose link `client0` hangs on the lab's bridge and has no address."""
    with Lab(title="netboot") as lab, Lab(title="netboot-client") as client:
        lab.run(["ip", "link", "add", "port0", "type", "veth", "peer", CLIENT_LINK, "netns", client.name])
        lab.run(["ip", "link", "set", "port0", "master", BRIDGE, "up"])
        client.run(["ip", "link", "delete", BRIDGE])
        client.run(["ip", "link", "set", CLIENT_LINK, "up"])
        yield lab, client


class NetbootLab:
    """A running netboot server in a lab; a context manager. Change `nodes` at any time: answers follow."""

    def __init__(
        self,
        lab: Lab,
        *,
        nodes: dict[str, NodeBoot] | None = None,
        reservations: dict[str, Reservation] | None = None,
        artefacts: dict[tuple[str, str], Path] | None = None,
        arguments: tuple[str, ...] = ("console=ttyS0", "panic=-1"),
        mode: Mode = Mode.AUTHORITATIVE,
        beside_another: bool = True,
        interface: str = BRIDGE,
        address: str = SERVER_ADDRESS,
    ) -> None:
        self.nodes = nodes or {}
        self.reservations = reservations or {}
        self.events: list[NetbootEvent] = []
        self.requests: list[BootRequest] = []
        self.policy = BootPolicy(server_address=address, http_base=f"http://{address}:{HTTP_PORT}")
        self._artefacts = artefacts or {}
        self._arguments = arguments
        self._lab = lab
        self._beside_another = beside_another
        self._fault: BaseException | None = None
        self._ready = threading.Event()
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._claims = 0
        config = DhcpConfig(
            server_address=IPv4Address(address),
            network=IPv4Network("10.77.0.0/24"),
            pool=Pool(IPv4Address("10.77.0.100"), IPv4Address("10.77.0.150")),
            mode=mode,
        )
        self._interface = interface
        self.dhcp = DhcpService(interface, DhcpServer(config, MemoryLeases()), self, self.events.append)
        self.router = RouterService(interface)
        self.tftp: TftpService | None = None
        self._thread = threading.Thread(target=self._run, name="netboot-lab")

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(30)
        if self._fault is not None:
            self._thread.join()
            raise self._fault
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def kinds(self) -> list[EventKind]:
        return [event.kind for event in self.events]

    async def lookup(self, mac: str, request: BootRequest) -> AnyAnswer:
        self.requests.append(request)
        return decide(self.nodes.get(mac), request, self.policy)

    async def reservation(self, mac: str) -> Reservation | None:
        return self.reservations.get(mac)

    async def agent_boot(self, mac: str, request: BootRequest) -> AgentBoot:
        self._claims += 1
        return AgentBoot(
            kernel_url=f"{HTTP_BASE}/boot/kernel/vm",
            initramfs_url=f"{HTTP_BASE}/boot/initramfs/vm",
            server_url=f"https://{SERVER_ADDRESS}:8443",
            claim=f"claim-{self._claims}",
            arguments=self._arguments,
        )

    def _run(self) -> None:
        with inside(self._lab.name):
            try:
                asyncio.run(self._serve())
            except Exception as fault:  # noqa: BLE001  # handed to the thread that waits in __enter__
                self._fault = fault
            finally:
                self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        files = tftp_files(self.policy, find_loaders(self.policy.offered_files))
        self.tftp = TftpService(files, self.events.append, dynamic=GrubFiles(self), interface=self._interface)
        await self.dhcp.start(beside_another=self._beside_another)
        try:
            self.tftp.start()
            self.router.start()
            async with await asyncio.start_server(self._http, self.policy.server_address, HTTP_PORT):
                self._ready.set()
                await self._stop.wait()
        finally:
            self.router.stop()
            self.tftp.stop()
            await self.dhcp.stop()

    async def _http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            path, _, query = head.split(" ")[1].partition("?")
            answer = await answer_http(path, query, site=self, policy=self.policy)
            body = answer.body
            if answer.kind == "loader":
                body = (Path("/usr/lib/ipxe") / answer.name).read_bytes()
            elif answer.kind:
                body = self._artefacts[answer.kind, answer.name].read_bytes()
            if answer.why:
                self.events.append(NetbootEvent(kind=EventKind.SCRIPT, mac=answer.mac, text=answer.why))
            lines = (f"HTTP/1.1 {answer.status} x", f"Content-Length: {len(body)}", "Connection: close", "", "")
            writer.write("\r\n".join(lines).encode())
            writer.write(body)
            await writer.drain()
        writer.close()


def udp_socket(client: Lab, address: str) -> socket.socket:
    """Give `client` this address (once) and return a UDP socket bound to it."""
    client.run(["ip", "address", "replace", f"{address}/24", "dev", CLIENT_LINK])
    with inside(client.name):
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.settimeout(2)
    opened.bind((address, 0))
    return opened
