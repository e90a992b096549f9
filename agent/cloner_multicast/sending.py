"""Runs a sender over its socket: sends what is due, takes reports as they come, and sleeps between bursts."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

from cloner_core.multicast.sealing import ReportOpener, Sealer
from cloner_core.multicast.sender import WAIT_S, Sender
from cloner_multicast.sockets import SenderSocket

_REPORTS_AT_ONCE = 64  # taken between two bursts: a flood of them must not stop the sending


class Sending:
    """One epoch of a session on the wire."""

    def __init__(
        self,
        sender: Sender,
        sealer: Sealer,
        opener: ReportOpener,
        opened: SenderSocket,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the sender, its keys and its socket; `clock` is the one by which the sender was made."""
        self.sender = sender
        self.rejects = opener.rejects
        self._sealer = sealer
        self._opener = opener
        self._socket = opened
        self._clock = clock

    def run(self, until_s: float, *others: int) -> list[int]:
        """Send until then, until the session is over, or until descriptors of `others` can be read: return those.

        Raises OSError when the socket fails for good.
        """
        poller = select.poll()
        poller.register(self._socket.fileno(), select.POLLIN)
        for fd in others:
            poller.register(fd, select.POLLIN)
        while not self.sender.is_over:
            now_s = self._clock()
            if now_s >= until_s:
                break
            message = self.sender.next(now_s)
            if message is not None:
                self._socket.send(self._sealer.seal(message), self._sealer.segment_bytes)
                wait_s = 0.0
            else:
                due_s = self.sender.due_s()
                wait_s = max(0.0, min(due_s if due_s > now_s else now_s + WAIT_S, until_s) - now_s)
            # poll(2) counts in milliseconds, which is two bursts: shorter waits are slept.
            if 0 < wait_s < 0.002:
                time.sleep(wait_s)
                wait_s = 0.0
            found = [fd for fd, _ in poller.poll(int(wait_s * 1000))]
            if self._socket.fileno() in found:
                self._take_reports()
                found.remove(self._socket.fileno())
            if found:
                return found
        return []

    def _take_reports(self) -> None:
        now_s = self._clock()
        for _ in range(_REPORTS_AT_ONCE):
            datagram = self._socket.receive()
            if datagram is None:
                return
            report = self._opener.open(datagram)
            if report is not None:
                self.sender.receive(report, now_s)
