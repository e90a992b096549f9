"""Parcels of a session on a node: received by a process of its own, for the processes that write them.

Receiving never waits for a disk. The parent reads which parcels have come, workers find them in shared memory and say
when they are written; then their places are used again.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import random
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import IntEnum
from multiprocessing.process import BaseProcess

from cloner_core.allocation import keep_freed_memory
from cloner_core.errors import ClonerError
from cloner_core.multicast.gathering import Gathering
from cloner_core.multicast.receiver import Receiver
from cloner_core.multicast.session import Leaving, Session
from cloner_multicast.receiving import Receiving, Seat
from cloner_multicast.slots import Slots
from cloner_multicast.sockets import Group, ReceiverSocket

Join = Callable[[], Seat | None]
"""Asks the server for the epoch that is sent now; None when the session is over."""

_TURN_S = 0.5
_ASK_S = 1.0  # between two questions to the server
_EVENT = struct.Struct("<BI")
_RELEASE = struct.Struct("<I")
_STATE = struct.Struct("<QQQdI")
_READ_BYTES = 4096


class _Event(IntEnum):
    PARCEL = 1  # came, is what it should be, and has its place
    DONE = 2  # every parcel was written
    LEFT = 3  # no longer served: a reason
    FAILED = 4  # the process ended with a fault of its own


@dataclass(frozen=True, slots=True)
class FeedState:
    """How far a feed is."""

    datagrams: int = 0
    forged: int = 0
    poisoned: int = 0
    loss: float = 0.0
    done: int = 0


class Feed:
    """One session on one node. To be made and started before workers are forked."""

    def __init__(self, session: Session, group: Group, join: Join) -> None:
        """`session` is of any epoch: which one is sent, `join` says, in the process that receives."""
        self.session = session
        self.left: Leaving | None = None
        """Why it ended before everything had come; None while it goes on, and at its good end."""
        self._group = group
        self.join = join
        largest = max(parcel.size for parcel in session.parcels)
        self.slots = Slots(session.window_parcels, largest, len(session.parcels))
        self.shared = mmap.mmap(-1, _STATE.size)
        self._process: BaseProcess | None = None
        self._events = self._releases = -1

    def start(self) -> None:
        """Begin to receive."""
        events, told = os.pipe()
        released, self._releases = os.pipe()
        context = multiprocessing.get_context("fork")
        process = context.Process(target=self._receive, args=(told, released, (events, self._releases)), daemon=True)
        process.start()
        self._process, self._events = process, events
        os.close(told)
        os.close(released)

    def parcels(self) -> Iterator[int]:
        """Give the number of each parcel as it comes; ends when all have come, or when no more will (`left`)."""
        given, rest = 0, b""
        while given < len(self.session.parcels) and self.left is None:
            data = os.read(self._events, _READ_BYTES)
            if not data:
                self.left = Leaving.SILENT
                return
            rest += data
            whole = len(rest) - len(rest) % _EVENT.size
            for kind, value in _EVENT.iter_unpack(rest[:whole]):
                if kind == _Event.PARCEL:
                    given += 1
                    yield value
                elif kind in (_Event.LEFT, _Event.FAILED):
                    self.left = Leaving(value)
            rest = rest[whole:]

    def find(self, parcel: int) -> memoryview | None:
        """Return the bytes of a parcel that has come and was not released, None for any other; in any process."""
        return self.slots.find(parcel, self.session.parcels[parcel].size)

    def release(self, parcel: int) -> None:
        """Say that a parcel is written; in any process. What `find` returned must not be looked at any more."""
        with suppress(BrokenPipeError):  # nobody receives any more
            os.write(self._releases, _RELEASE.pack(parcel))

    def state(self) -> FeedState:
        """Return how far it is."""
        datagrams, forged, poisoned, loss, done = _STATE.unpack(self.shared[:])
        return FeedState(datagrams, forged, poisoned, loss, done)

    def stop(self) -> None:
        """End it, whatever it does."""
        if self._process is None:
            return
        os.close(self._events)
        os.close(self._releases)
        self._process.join(_TURN_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process = None

    # In the process that receives

    def _receive(self, told: int, released: int, others: tuple[int, ...]) -> None:
        for fd in others:
            os.close(fd)
        keep_freed_memory()
        try:
            with suppress(BrokenPipeError):
                _Reception(self, told, released).run(self._group)
        except (ClonerError, OSError):
            with suppress(OSError):
                os.write(told, _EVENT.pack(_Event.FAILED, Leaving.SILENT))
            raise


class _Reception:
    """What the receiving process does until nobody reads of it any more."""

    def __init__(self, feed: Feed, told: int, released: int) -> None:
        self._session = feed.session
        self._slots = feed.slots
        self._join = feed.join
        self._shared = feed.shared
        self._told = told
        self._released = released
        self._places: dict[int, object] = {}  # of parcels that others have
        self._asked_s = time.monotonic()
        self._is_over = False

    def run(self, group: Group) -> None:
        opened = ReceiverSocket(group)  # switches learn of it while the server is asked
        try:
            seat = self._join()
            if seat is None:
                self._end(Leaving.OVER)
                self._wait()
                return
            memory, now_s = self._slots, time.monotonic()
            session = replace(self._session, stream=seat.stream)
            receiver = Receiver(session, seat.number, random.random, now_s, allocate=memory.allocate, free=memory.free)
            self._loop(receiver, Receiving(receiver, seat, opened))
        finally:
            opened.close()

    def _loop(self, receiver: Receiver, receiving: Receiving) -> None:
        is_told = False
        while True:
            whole, found = receiving.turn(_TURN_S, self._released)
            for gathering in whole:
                self._hand_over(receiver, gathering)
            if found and not self._take_releases(receiver):
                return
            if receiver.is_done and not is_told:
                is_told = True
                os.write(self._told, _EVENT.pack(_Event.DONE, 0))
            if receiver.left is not None and not receiver.is_done:
                self._end(receiver.left)
            elif receiver.is_stale(time.monotonic()) and not self._is_over:
                self._ask(receiver, receiving)
            self._note(receiver, receiving)

    def _hand_over(self, receiver: Receiver, gathering: Gathering) -> None:
        parcel = gathering.parcel
        if gathering.finish(self._session.parcels[parcel].digest) is None:
            self._slots.free(gathering.buffer)
            receiver.settle(parcel, is_good=False)
            return
        self._places[parcel] = gathering.buffer
        self._slots.publish(parcel, gathering.buffer)
        os.write(self._told, _EVENT.pack(_Event.PARCEL, parcel))

    def _take_releases(self, receiver: Receiver) -> bool:
        """Take the word of those who write; return False when they are gone."""
        data = os.read(self._released, _READ_BYTES - _READ_BYTES % _RELEASE.size)
        for (parcel,) in _RELEASE.iter_unpack(data):
            place = self._places.pop(parcel, None)
            if place is not None:
                self._slots.withdraw(parcel)
                self._slots.free(place)
                receiver.settle(parcel, is_good=True)
        return bool(data)

    def _ask(self, receiver: Receiver, receiving: Receiving) -> None:
        now_s = time.monotonic()
        if now_s - self._asked_s < _ASK_S:
            return
        self._asked_s = now_s
        seat = self._join()
        if seat is None:
            self._end(Leaving.OVER)
        elif seat.stream != receiver.session.stream:
            receiving.enter(seat)

    def _end(self, reason: Leaving) -> None:
        if not self._is_over:
            self._is_over = True
            os.write(self._told, _EVENT.pack(_Event.LEFT, reason))

    def _wait(self) -> None:
        while os.read(self._released, _READ_BYTES):
            pass

    def _note(self, receiver: Receiver, receiving: Receiving) -> None:
        counters, rejects = receiver.counters, receiving.rejects
        _STATE.pack_into(
            self._shared, 0, counters.datagrams, rejects.forged, counters.poisoned, receiver.loss, receiver.done
        )
