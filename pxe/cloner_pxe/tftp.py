"""Serves boot loaders over TFTP: tftpy's transfers behind a loop of our own, in a thread of its own.

Read-only; names come from a list, never from a file system. tftpy's own loop is not used, because one malformed
datagram from anybody ends it (docs/adr/0030): here every datagram is parsed before tftpy sees it.
"""

from __future__ import annotations

import io
import logging
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from tftpy.TftpContexts import TftpContextServer
from tftpy.TftpShared import TftpException
from tftpy.TftpStates import TftpStateServerRecvRRQ

from cloner_core.errors import RefusedError
from cloner_pxe.events import EventKind, EventSink, NetbootEvent
from cloner_pxe.tftp_request import ErrorCode, Opcode, ReadRequest, error, read_request

log = logging.getLogger(__name__)
logging.getLogger("tftpy").setLevel(logging.CRITICAL)  # it logs each block at INFO and each stranger at ERROR

TFTP_PORT = 69
RETRANSMITS = 5
FIRST_DELAY_S = 1.0  # doubled each time
SILENT_CLIENT_S = 10.0
TRANSFERS_PER_ADDRESS = 4
TRANSFERS_IN_ALL = 128
_TURN_S = 0.25
# A path beneath a file cannot exist, so tftpy never finds a file by itself and always asks us.
_NO_ROOT = "/dev/null"

Content = bytes | Path
Dynamic = Callable[[str, str], "bytes | None"]


class _ReadState(TftpStateServerRecvRRQ):  # type: ignore[misc]  # tftpy has no types
    """Grants only options that were asked for: tftpy adds blksize to any OACK, and EDK2 refuses such a one."""

    def __init__(self, context: TftpContextServer, request: ReadRequest) -> None:
        super().__init__(context)
        self._request = request

    def sendOACK(self) -> None:
        if self._request.block_bytes is None:
            self.context.options.pop("blksize", None)
        super().sendOACK()


@dataclass(slots=True)
class _Transfer:
    context: TftpContextServer
    request: ReadRequest
    address: str
    started_s: float
    heard_s: float
    sent_s: float
    tries: int = 0
    has_ack: bool = False

    @property
    def name(self) -> str:
        return self.request.name


@dataclass(slots=True)
class TftpCounts:
    """What was turned away."""

    malformed: int = 0
    refused: int = 0  # writes, names not on the list
    crowded: int = 0  # beyond the limits per address or in all


@dataclass(slots=True)
class _Wire:
    """What exists only while serving."""

    main: socket.socket
    waker: socket.socket
    woken: socket.socket
    selector: selectors.DefaultSelector = field(default_factory=selectors.DefaultSelector)
    transfers: dict[tuple[str, int], _Transfer] = field(default_factory=dict)


class TftpService:
    """TFTP on one address, from `start` to `stop`.

    `files` is the list: names to bytes or to a file of the server. `dynamic(name, address)` may make the bytes of any
    further name, or return None. `emit` and `dynamic` are called from the service's own thread and must be quick.
    """

    def __init__(
        self,
        files: Mapping[str, Content],
        emit: EventSink,
        *,
        dynamic: Dynamic | None = None,
        address: str = "0.0.0.0",
        port: int = TFTP_PORT,
        interface: str = "",
    ) -> None:
        self._files = dict(files)
        self._emit = emit
        self._dynamic = dynamic
        self._address = address
        self._port = port
        self._interface = interface
        self._wire: _Wire | None = None
        self._thread: threading.Thread | None = None
        self.counts = TftpCounts()

    @property
    def port(self) -> int:
        """The port in use; differs from the one asked for when that was 0."""
        return self._port

    def start(self) -> None:
        """Open the port and serve. Raises RefusedError when the port is taken or the address is not ours."""
        main = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._bind(main, self._port)
        except OSError as fault:
            main.close()
            raise RefusedError(
                f"TFTP cannot serve on {self._address}:{self._port}: {fault}",
                hint="does another TFTP server run here?",
            ) from fault
        self._port = main.getsockname()[1]
        waker, woken = socket.socketpair()
        self._wire = _Wire(main, waker, woken)
        self._wire.selector.register(main, selectors.EVENT_READ)
        self._wire.selector.register(woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, args=(self._wire,), name="tftp", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the transfers under way and the thread; returns when the port is free."""
        if self._wire is None or self._thread is None:
            return
        self._wire.waker.send(b"x")
        self._thread.join()
        self._wire.waker.close()
        self._wire = self._thread = None

    def _bind(self, opened: socket.socket, port: int) -> None:
        if self._interface:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._interface.encode())
        opened.bind((self._address, port))

    def _serve(self, wire: _Wire) -> None:
        try:
            while True:
                for key, _ in wire.selector.select(_TURN_S if wire.transfers else None):
                    if key.fileobj is wire.woken:
                        return
                    self._turn(wire, key.data)
                self._check_times(wire)
        finally:
            for peer in list(wire.transfers):
                self._end(wire, peer)
            wire.selector.close()
            wire.main.close()
            wire.woken.close()

    def _turn(self, wire: _Wire, peer: tuple[str, int] | None) -> None:
        try:
            if peer is None:
                self._first_datagram(wire)
            elif peer in wire.transfers:
                self._next_datagram(wire, peer)
        except Exception:  # one machine's fault must not end everybody's TFTP
            log.exception("TFTP transfer to %s ended by a fault", peer)
            if peer is not None:
                self._end(wire, peer)

    def _first_datagram(self, wire: _Wire) -> None:
        try:
            datagram, peer = wire.main.recvfrom(2048)
        except OSError:  # an ICMP error of an earlier answer
            return
        request = read_request(datagram)
        if request is None:
            self.counts.malformed += 1
        elif isinstance(request, ErrorCode):
            self._refuse(wire, peer, request)
        elif peer in wire.transfers and wire.transfers[peer].request == request:
            self._again(wire, peer)
        else:
            self._end(wire, peer)  # a client that asks for something else has given up what it had
            self._serve_request(wire, peer, request)

    def _serve_request(self, wire: _Wire, peer: tuple[str, int], request: ReadRequest) -> None:
        if self._is_crowded(wire, peer[0]):
            self.counts.crowded += 1  # without an answer: the client asks again in a second
            return
        content = self._open(request.name, peer[0])
        if content is None:
            self._refuse(wire, peer, ErrorCode.NOT_FOUND)
        else:
            self._begin(wire, peer, request, content)

    def _is_crowded(self, wire: _Wire, address: str) -> bool:
        same = sum(1 for other, _ in wire.transfers if other == address)
        return len(wire.transfers) >= TRANSFERS_IN_ALL or same >= TRANSFERS_PER_ADDRESS

    def _open(self, name: str, address: str) -> BinaryIO | None:
        content = self._files.get(name)
        if content is None and self._dynamic is not None:
            content = self._dynamic(name, address)
        if content is None:
            return None
        if isinstance(content, bytes):
            return io.BytesIO(content)
        try:
            return content.open("rb")
        except OSError as fault:
            log.error("boot file %s is on the list and cannot be read: %s", name, fault)
            return None

    def _refuse(self, wire: _Wire, peer: tuple[str, int], code: ErrorCode) -> None:
        self.counts.refused += 1
        try:
            wire.main.sendto(error(code), peer)
        except OSError as fault:
            log.debug("TFTP error to %s not sent: %s", peer, fault)

    def _begin(self, wire: _Wire, peer: tuple[str, int], request: ReadRequest, content: BinaryIO) -> None:
        context = TftpContextServer(
            *peer, FIRST_DELAY_S, _NO_ROOT, lambda *_args, **_names: content, retries=RETRANSMITS, flock=False
        )
        now = time.monotonic()
        try:
            # The answer leaves from the address that was asked, and the kernel drops what others send to its port.
            self._bind(context.sock, 0)
            context.sock.connect(peer)
            context.sock.setblocking(False)
            packet = context.factory.parse(request.encode())
            context.state = _ReadState(context, request).handle(packet, *peer)
        except (OSError, TftpException) as fault:
            content.close()
            context.end()
            log.warning("TFTP of %s to %s did not begin: %s", request.name, peer[0], fault)
            return
        wire.transfers[peer] = _Transfer(context, request, peer[0], now, heard_s=now, sent_s=now)
        wire.selector.register(context.sock, selectors.EVENT_READ, peer)

    def _next_datagram(self, wire: _Wire, peer: tuple[str, int]) -> None:
        transfer = wire.transfers[peer]
        context = transfer.context
        try:
            datagram = context.sock.recv(2048)
            opcode, block = struct.unpack_from("!HH", datagram.ljust(4, b"\0"))
            if opcode == Opcode.ERROR:
                # EDK2 asks once for the size alone and ends that transfer with an error: nothing failed.
                if transfer.has_ack:
                    self._tell(EventKind.TFTP_FAILED, transfer, f"TFTP of {transfer.name} ended by the client")
                self._end(wire, peer)
                return
            if opcode != Opcode.ACK or block != context.next_block:
                # A repeated ACK must not make a repeated block, or both go on twice for ever (RFC 1123 §4.2.3.1).
                self.counts.malformed += opcode != Opcode.ACK
                return
            if not transfer.has_ack:
                self._tell(EventKind.TFTP_START, transfer, f"TFTP of {transfer.name} began")
            transfer.has_ack, transfer.tries = True, 0
            transfer.heard_s = transfer.sent_s = time.monotonic()
            context.state = context.state.handle(context.factory.parse(datagram[:4]), *peer)
        except BlockingIOError:  # a datagram with a wrong checksum wakes us and is gone
            return
        except (OSError, TftpException) as fault:
            self._tell(EventKind.TFTP_FAILED, transfer, f"TFTP of {transfer.name}: {fault}")
            self._end(wire, peer)
            return
        if context.state is None:
            seconds = time.monotonic() - transfer.started_s
            text = f"TFTP of {transfer.name}: {context.metrics.bytes} bytes in {seconds:.1f} s"
            self._tell(EventKind.TFTP_DONE, transfer, text)
            self._end(wire, peer)

    def _check_times(self, wire: _Wire) -> None:
        now = time.monotonic()
        for peer, transfer in list(wire.transfers.items()):
            if not transfer.has_ack:
                # No repetition before the first sign of life: a forged address costs its owner one datagram.
                if now - transfer.heard_s > SILENT_CLIENT_S:
                    self._end(wire, peer)
            elif now - transfer.sent_s > FIRST_DELAY_S * 2**transfer.tries:
                if transfer.tries == RETRANSMITS:
                    block = transfer.context.next_block
                    text = f"TFTP of {transfer.name} stopped at block {block}: the client fell silent"
                    self._tell(EventKind.TFTP_FAILED, transfer, text)
                    self._end(wire, peer)
                else:
                    self._again(wire, peer)

    def _again(self, wire: _Wire, peer: tuple[str, int]) -> None:
        transfer = wire.transfers[peer]
        transfer.tries += 1
        transfer.sent_s = time.monotonic()
        try:
            transfer.context.state.resendLast()
        except OSError as fault:
            log.debug("TFTP block to %s not sent again: %s", transfer.address, fault)
        except TftpException as fault:  # the same datagram twenty times
            self._tell(EventKind.TFTP_FAILED, transfer, f"TFTP of {transfer.name}: {fault}")
            self._end(wire, peer)

    def _end(self, wire: _Wire, peer: tuple[str, int]) -> None:
        transfer = wire.transfers.pop(peer, None)
        if transfer is None:
            return
        wire.selector.unregister(transfer.context.sock)
        transfer.context.end()

    def _tell(self, kind: EventKind, transfer: _Transfer, text: str) -> None:
        self._emit(NetbootEvent(kind=kind, address=transfer.address, text=text))
