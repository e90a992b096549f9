"""Runs a receiver over its socket: opens what arrives, says what is due, gives whole parcels."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cloner_core.multicast.gathering import Gathering
from cloner_core.multicast.receiver import Receiver
from cloner_core.multicast.sealing import Opener, Rejects, ReportSealer
from cloner_multicast.sockets import Address, ReceiverSocket

_READS_AT_ONCE = 32  # two MiB: then time is looked at, and reports are sent


@dataclass(frozen=True, slots=True)
class Seat:
    """What the server gives a receiver for one epoch."""

    stream: int
    number: int
    group_key: bytes = field(repr=False)
    own_key: bytes = field(repr=False)
    sender: Address


class Receiving:
    """One receiver on the wire."""

    def __init__(
        self, receiver: Receiver, seat: Seat, opened: ReceiverSocket, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take the receiver, made for `seat` by this clock, and its socket."""
        self.receiver = receiver
        self._socket = opened
        self._clock = clock
        self._sit(seat)

    @property
    def rejects(self) -> Rejects:
        """What was dropped in this epoch."""
        return self._opener.rejects

    def enter(self, seat: Seat) -> None:
        """Go on with another epoch."""
        self.receiver.enter(seat.stream, seat.number, self._clock())
        self._sit(seat)

    def _sit(self, seat: Seat) -> None:
        self._opener = Opener(seat.group_key, seat.stream, self.receiver.session.block_bytes)
        self._sealer = ReportSealer(seat.own_key, seat.stream)
        self._sender = seat.sender

    def turn(self, most_s: float, *others: int) -> tuple[list[Gathering], list[int]]:
        """Wait for so long at most and take what arrived; return what became whole, and which `others` can be read."""
        receiver = self.receiver
        poller = select.poll()
        for fd in (self._socket.fileno(), *others):
            poller.register(fd, select.POLLIN)
        wait_s = max(0.0, min(most_s, receiver.due_s - self._clock()))
        found = [fd for fd, _ in poller.poll(-(-int(wait_s * 1e6) // 1000))]
        if self._socket.fileno() in found:
            found.remove(self._socket.fileno())
            for data, size in self._arrived():
                receiver.accept(self._opener.open(data, size), self._clock())
        receiver.tick(self._clock())
        for report in receiver.reports:
            self._socket.answer(self._sealer.seal(report), self._sender)
        receiver.reports.clear()
        whole = list(receiver.ready)
        receiver.ready.clear()
        return whole, found

    def _arrived(self) -> Iterator[tuple[bytes, int]]:
        for _ in range(_READS_AT_ONCE):
            read = self._socket.receive()
            if read is None:
                return
            yield read
