"""Runs a receiver over its socket: opens what arrives, says what is due, gives whole parcels."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cloner_core.multicast.combining import Workbench
from cloner_core.multicast.content import Content
from cloner_core.multicast.gathering import Gathering
from cloner_core.multicast.receiver import Receiver
from cloner_core.multicast.sealing import Opener, Rejects, ReportSealer
from cloner_multicast.sockets import Address, ReceiverSocket

_READS_AT_ONCE = 32  # two MiB: then time is looked at, and reports are sent
# After a turn that read all there was: several reads in one turn cost half of what as many turns do.
_PAUSE_S = 0.002  # a longer one would have a sender of some Gbit/s wait for what its receivers say
_LONG_PAUSE_S = 0.005  # half of what a report may be held back, for slower senders
_FAST_READS_PER_S = 2000.0  # of 64 KiB: 1 Gbit/s


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
        self._poller = select.poll()
        self._poller.register(opened.fileno(), select.POLLIN)
        self._others: tuple[int, ...] = ()
        self._bench = Workbench()
        self._pause_s = 0.0  # before the next turn
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
        self._opener = Opener(seat.group_key, seat.stream)
        self._content = Content(seat.group_key)
        self._sealer = ReportSealer(seat.own_key, seat.stream)
        self._sender = seat.sender

    def finish(self, gathering: Gathering) -> memoryview | None:
        """Return the bytes of a parcel that became whole in this epoch; None when they are not what was meant."""
        return gathering.finish(self.receiver.session.parcels[gathering.parcel].digest, self._content, self._bench)

    def turn(self, most_s: float, *others: int) -> tuple[list[Gathering], list[int]]:
        """Wait for so long at most and take what arrived; return what became whole, and which `others` can be read."""
        receiver = self.receiver
        wait_s = max(0.0, min(most_s, receiver.due_s - self._clock()))
        paused_s, self._pause_s = min(wait_s, self._pause_s), 0.0
        if paused_s:
            time.sleep(paused_s)
        found = self._wait(wait_s - paused_s, others)
        if self._socket.fileno() in found:
            found.remove(self._socket.fileno())
            for data, size in self._arrived(paused_s):
                receiver.accept(self._opener.open(data, size), self._clock())
        receiver.tick(self._clock())
        for report in receiver.reports:
            self._socket.answer(self._sealer.seal(report), self._sender)
        receiver.reports.clear()
        whole = list(receiver.ready)
        receiver.ready.clear()
        return whole, found

    def _wait(self, wait_s: float, others: tuple[int, ...]) -> list[int]:
        if others != self._others:
            for fd in self._others:
                self._poller.unregister(fd)
            for fd in others:
                self._poller.register(fd, select.POLLIN)
            self._others = others
        return [fd for fd, _ in self._poller.poll(-(-int(wait_s * 1e6) // 1000))]

    def _arrived(self, paused_s: float) -> Iterator[tuple[bytes, int]]:
        for reads in range(_READS_AT_ONCE):
            read = self._socket.receive()
            if read is None:
                self._pause_s = _PAUSE_S if reads > _FAST_READS_PER_S * paused_s else _LONG_PAUSE_S
                return
            yield read
