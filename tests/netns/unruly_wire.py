"""A wire that loses, doubles, delays and swaps: a process that carries frames between the ports of a yard.

What happens to the nth datagram that leaves a port is drawn from a seed. Only UDP is treated so; ARP passes.
"""

from __future__ import annotations

import heapq
import multiprocessing
import random
import select
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import RawArray
from typing import Any

# include/uapi/linux/if_packet.h, if_ether.h; Python has no names for these.
_SOL_PACKET, _PACKET_IGNORE_OUTGOING = 263, 23
_ETH_P_ALL = 0x0003
_IPV4, _UDP = b"\x08\x00", 17
_BUFFER_BYTES = 512 << 10  # as a switch has: what waits longer than that is lost, not late by seconds
_READS_AT_ONCE = 64
_CONTEXT = multiprocessing.get_context("fork")


@dataclass(frozen=True, slots=True)
class Manners:
    """How a port treats the datagrams that leave it; parts of 1."""

    loss: float = 0.0  # each by itself
    bursts: float = 0.0  # of datagrams, with which a run of losses begins
    burst_most: int = 30  # datagrams of such a run
    duplicates: float = 0.0
    late: float = 0.0  # that are overtaken by others
    late_s: float = 0.005  # at most


@dataclass
class Counts:
    """What a wire did to datagrams, as another process sees it; made before the wire is."""

    _memory: Any = field(default_factory=lambda: RawArray("q", 4))

    def note(self, at: int) -> None:
        self._memory[at] += 1

    @property
    def carried(self) -> int:
        return int(self._memory[0])

    @property
    def lost(self) -> int:
        return int(self._memory[1])

    @property
    def doubled(self) -> int:
        return int(self._memory[2])

    @property
    def delayed(self) -> int:
        return int(self._memory[3])


@dataclass
class Port:
    """What is on its way out of one port."""

    manners: Manners
    chance: random.Random
    counts: Counts
    _queue: list[tuple[float, int, bytes]] = field(default_factory=list)
    _number: int = 0
    _losing: int = 0

    def take(self, frame: bytes, now_s: float) -> None:
        """Take a frame that is to leave, or is lost."""
        if not is_datagram(frame):
            self._put(frame, now_s)
            return
        manners, draw = self.manners, self.chance.random
        self.counts.note(0)
        if not self._losing and draw() < manners.bursts:
            self._losing = self.chance.randint(2, manners.burst_most)
        if self._losing or draw() < manners.loss:
            self._losing = max(0, self._losing - 1)
            self.counts.note(1)
            return
        if draw() < manners.duplicates:
            self.counts.note(2)
            self._put(frame, now_s + draw() * manners.late_s)
        is_late = draw() < manners.late
        if is_late:
            self.counts.note(3)
        self._put(frame, now_s + (draw() * manners.late_s if is_late else 0.0))

    def due(self, now_s: float) -> list[bytes]:
        """Return the frames whose time to leave has come, in the order they leave."""
        frames = []
        while self._queue and self._queue[0][0] <= now_s:
            frames.append(heapq.heappop(self._queue)[2])
        return frames

    @property
    def is_empty(self) -> bool:
        return not self._queue

    def _put(self, frame: bytes, due_s: float) -> None:
        self._number += 1
        heapq.heappush(self._queue, (due_s, self._number, frame))


def is_datagram(frame: bytes) -> bool:
    """Return whether an Ethernet frame is an IPv4 UDP datagram."""
    return frame[12:14] == _IPV4 and len(frame) > 23 and frame[23] == _UDP


def carry(names: Sequence[str], manners: Sequence[Manners], seed: int, counts: Counts) -> None:
    """Be the wire between these interfaces, for ever; in the namespace they are in."""
    opened = [_open(name) for name in names]
    ports = [Port(one, random.Random(f"{seed} {at}"), counts) for at, one in enumerate(manners)]
    homes: dict[bytes, int] = {}  # which port a MAC was seen at
    poller = select.poll()
    numbers = {one.fileno(): at for at, one in enumerate(opened)}
    for fd in numbers:
        poller.register(fd, select.POLLIN)
    while True:
        idle = all(port.is_empty for port in ports)
        for fd, _ in poller.poll(100 if idle else 1):
            source = numbers[fd]
            for frame in _arrived(opened[source]):
                homes[frame[6:12]] = source
                home = homes.get(frame[:6])
                for at in range(len(ports)) if home is None else (home,):
                    if at != source:
                        ports[at].take(frame, time.monotonic())
        for port, one in zip(ports, opened, strict=True):
            for frame in port.due(time.monotonic()):
                _send(one, frame)


def _open(name: str) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    made.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES // 2)
    made.bind((name, _ETH_P_ALL))
    made.setblocking(False)
    return made


def _arrived(one: socket.socket) -> list[bytes]:
    frames = []
    with suppress(BlockingIOError):
        for _ in range(_READS_AT_ONCE):
            frames.append(one.recv(1 << 16))
    return frames


def _send(one: socket.socket, frame: bytes) -> None:
    with suppress(OSError):  # a full queue is a loss as any other; a link may go before its wire
        one.send(frame)
