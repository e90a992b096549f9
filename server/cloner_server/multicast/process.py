"""The process that sends one epoch of a session: `python -m cloner_server.multicast.process`, started by the server.

It gets its order and then commands on stdin, and tells its news on stdout, a line each. It opens the files of
the store, or of a relay's cache, to read them, and its sockets. It ends with the server, however that ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from contextlib import suppress
from math import inf
from pathlib import Path

import msgspec

from cloner_core.allocation import keep_freed_memory
from cloner_core.errors import ClonerError, ExitStatus, NotFoundError, RefusedError
from cloner_core.multicast.content import Content
from cloner_core.multicast.members import Member, Members
from cloner_core.multicast.pacing import FRAME6_BYTES, FRAME_BYTES
from cloner_core.multicast.sealing import ReportOpener, Sealer
from cloner_core.multicast.sender import Pace, Sender
from cloner_core.multicast.session import Parcel, Session, group_key, receiver_key
from cloner_multicast.sending import Sending
from cloner_multicast.sockets import Group, SenderSocket
from cloner_server.multicast.orders import (
    Admit,
    Begin,
    Command,
    Dismiss,
    InCache,
    InStore,
    Limit,
    ReceiverNews,
    SenderNews,
    SenderOrder,
    SenderPhase,
    Settle,
)
from cloner_server.multicast.parcels import PackFiles, ParcelSource
from cloner_server.multicast.querier import Querier
from cloner_server.relay.cachefiles import CacheReader
from cloner_server.store.reader import StoreReader

_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
_TELL_S = 1.0
_TURN_S = 0.1
_TOLD_PER_S = 10_000  # receivers: those of a great session are told less often
_READ_BYTES = 1 << 16
_ALTERED = (
    "what was sent was altered on its way to a receiver (a bad cable, or somebody who means harm): since then every "
    "datagram has a tag over all of it, which costs both ends more"
)
_STREAM_STEP = 0x9E37  # epochs begin far apart in the combinations they send

_decode_command = msgspec.json.Decoder(Command).decode


class Lines:
    """Lines of a pipe, as they come, and to a pipe, as it takes them."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self.incoming = incoming
        self.is_ended = False
        self._outgoing = outgoing
        self._rest = b""
        self._unsaid = b""

    def first(self) -> bytes:
        """Wait for the first line; returns what there is when the other side ends before."""
        while b"\n" not in self._rest and not self.is_ended:
            self._read()
        line, _, self._rest = self._rest.partition(b"\n")
        os.set_blocking(self.incoming, False)
        os.set_blocking(self._outgoing, False)
        return line

    def read(self) -> list[bytes]:
        """Return the lines that have come."""
        with suppress(BlockingIOError):
            self._read()
        *lines, self._rest = self._rest.split(b"\n")
        return lines

    def _read(self) -> None:
        data = os.read(self.incoming, _READ_BYTES)
        self._rest += data
        self.is_ended = not data

    @property
    def is_busy(self) -> bool:
        """Whether the last line has not gone out yet: nothing is sent while a pipe is waited for."""
        if self._unsaid:
            with suppress(BlockingIOError):
                self._unsaid = self._unsaid[os.write(self._outgoing, self._unsaid) :]
        return bool(self._unsaid)

    def write(self, line: bytes) -> None:
        """Have a line go out; only when it is not busy."""
        self._unsaid = line + b"\n"
        _ = self.is_busy


class Epoch:
    """One sender on its socket, with what the server says and hears."""

    def __init__(self, order: SenderOrder, lines: Lines) -> None:
        """Open the sockets. Raises ClonerError or OSError."""
        parcels = tuple(
            Parcel(bytes.fromhex(name), size)
            for name, size in zip(order.parcels.digests, order.parcels.sizes, strict=True)
        )
        session = Session(order.stream, parcels, order.block_bytes, order.window_parcels)
        master, now_s = bytes.fromhex(order.master.value), time.monotonic()
        self._lines = lines
        key = group_key(master)
        origin, content = _open_origin(order.origin), Content(key)
        self._source = ParcelSource(origin, bytes.fromhex(order.pack_map), order.parcels, content)
        self._sender = Sender(
            session,
            self._source,
            Pace(order.rate_bps, order.floor_bps, frame_bytes=FRAME6_BYTES if ":" in order.group else FRAME_BYTES),
            now_s,
            first_combination=order.stream * _STREAM_STEP & 0xFFFF,
            parcels=range(min(order.first_parcel, len(parcels)), len(parcels)),
            is_gathering=True,
        )
        members = self._sender.members.members
        opener = ReportOpener(lambda one: receiver_key(master, one) if one in members else None, order.stream)
        self._rejects = opener.rejects
        self._socket = _open(order)
        sealer = Sealer(key, order.stream, order.block_bytes)
        self._sending = Sending(self._sender, sealer, opener, self._socket)
        self._notes: list[str] = []
        self._querier = self._make_querier(order, now_s) if order.query_every_s else None
        self._begun = order.first_parcel
        self._told_s = now_s
        self._told: tuple[object, ...] = ()

    def _make_querier(self, order: SenderOrder, now_s: float) -> Querier | None:
        if ":" in order.group:
            self._notes.append(
                "it asks nobody who listens (multicast_querier): it knows IGMP, and the group is of IPv6"
            )
            return None
        try:
            return Querier(order.interface, order.source, now_s, order.query_every_s)
        except OSError as error:
            self._notes.append(f"it asks nobody who listens (multicast_querier): {error}")
            return None

    def run(self) -> None:
        """Send until the session is over, or the server gone. Raises ClonerError or OSError."""
        self._tell()
        while not self._sender.is_over and not self._lines.is_ended:
            if self._sending.run(time.monotonic() + _TURN_S, self._lines.incoming):
                for line in self._lines.read():
                    self._obey(_decode_command(line))
            if self._sender.is_spent:
                raise ClonerError("the sequences of this epoch are used up: another has to go on")
            if self._querier is not None:
                self._querier.turn(time.monotonic())
            self._tell()

    def close(self) -> None:
        """Let go of what was opened."""
        self._socket.close()
        self._source.close()
        if self._querier is not None:
            self._querier.close()

    def _obey(self, command: Command) -> None:
        sender, now_s = self._sender, time.monotonic()
        match command:
            case Admit(number):
                sender.admit(number, now_s)
            case Begin():
                sender.begin(now_s)
            case Dismiss(number, reason):
                sender.dismiss(number, reason)
            case Settle(number):
                sender.settle(number)
            case Limit(rate_bps, floor_bps):
                sender.rate.limit(rate_bps, floor_bps)
            case _:
                sender.close()

    @property
    def _phase(self) -> SenderPhase:
        sender = self._sender
        if sender.is_gathering:
            return SenderPhase.GATHERING
        if not sender.is_quiet:
            return SenderPhase.SENDING
        return SenderPhase.SETTLED if sender.is_finished else SenderPhase.FINISHING

    def _tell(self) -> None:
        """Tell how it is, once a second and when something has changed; never wait for who listens."""
        now_s = time.monotonic()
        members = self._sender.members
        state = (self._phase, len(members.members), members.served, members.heard_count)
        self._begun = max(self._begun, len(self._sender.session.parcels) - self._sender.progress)
        if self._lines.is_busy:
            return
        if state == self._told and now_s - self._told_s < _TELL_S:
            return
        if now_s - self._told_s < len(members.members) / _TOLD_PER_S:
            return
        self._told, self._told_s = state, now_s
        self._lines.write(msgspec.json.encode(self._news(now_s)))

    def _news(self, now_s: float) -> SenderNews:
        address, port = self._socket.address
        members = self._sender.members
        return SenderNews(
            phase=self._phase,
            address=address,
            port=port,
            pid=os.getpid(),
            begun=self._begun,
            rate_bps=self._sender.rate.rate_bps,
            sent=self._sender.sent,
            rejects=self._rejects,
            receivers=tuple(_describe(members, one, now_s) for one in members.members.values()),
            notes=(*self._notes, *((_ALTERED,) if self._sender.is_strict else ())),
        )


def _describe(members: Members, member: Member, now_s: float) -> ReceiverNews:
    heard_s = round(now_s - member.heard_s, 2) if member.counter else None
    sought_s = round(now_s - member.sought_s, 2) if member.sought_s < inf else None
    loss, stuck_s = round(member.loss, 4), round(members.stuck_s(member), 2)
    return ReceiverNews(member.number, heard_s, member.done, member.is_done, loss, member.left, sought_s, stuck_s)


def _open_origin(origin: InStore | InCache) -> PackFiles:
    match origin:
        case InCache(directory):
            return CacheReader(Path(directory))
        case InStore(directory):
            return _read_store(Path(directory))


def _read_store(root: Path) -> StoreReader:
    if not (root / "lock").is_file():  # a store would be made there
        raise NotFoundError(f"there is no store in {root}")
    return StoreReader(root)


def _open(order: SenderOrder) -> SenderSocket:
    try:
        return SenderSocket(Group(order.group, order.port, order.interface, order.hops), order.source)
    except OSError as error:
        raise RefusedError(
            f"nothing can be sent from {order.source} on {order.interface}: {os.strerror(error.errno or 0)}",
            hint="the address must be one of the interface: ip address show",
        ) from error


def main() -> int:
    """Be the process; return its exit status."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    lines = Lines(sys.stdin.fileno(), sys.stdout.fileno())
    line = lines.first()
    if lines.is_ended:
        return ExitStatus.FAILED  # a server that died meanwhile needs no sender
    keep_freed_memory()
    try:
        epoch = Epoch(msgspec.json.decode(line, type=SenderOrder), lines)
        try:
            epoch.run()
        finally:
            epoch.close()
    except BrokenPipeError:
        return ExitStatus.FAILED  # nobody hears our news any more
    except (ClonerError, OSError, msgspec.MsgspecError) as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_status if isinstance(error, ClonerError) else ExitStatus.FAILED
    return ExitStatus.OK


if __name__ == "__main__":
    sys.exit(main())
