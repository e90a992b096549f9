"""Parcels of a session on a node: received by a process of its own, for the processes that write them.

Receiving never waits for a disk. The parent reads which parcels have come, workers find them in shared memory and say
when they are written; then their places are used again.
"""

from __future__ import annotations

import logging
import mmap
import multiprocessing
import os
import random
import select
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from enum import IntEnum
from multiprocessing.process import BaseProcess
from typing import Protocol

import msgspec

from cloner_core.allocation import keep_freed_memory
from cloner_core.errors import ClonerError
from cloner_core.mailbox import Mailbox
from cloner_core.multicast.content import SPARE_BYTES
from cloner_core.multicast.gathering import Gathering
from cloner_core.multicast.receiver import Receiver
from cloner_core.multicast.session import Leaving, Session
from cloner_multicast.receiving import Receiving, Seat
from cloner_multicast.slots import Slots
from cloner_multicast.sockets import Group, ReceiverSocket


class Join(Protocol):
    """Asks the server for a seat in the epoch that is sent now."""

    def __call__(self, stream: int, is_heard: bool, /) -> Seat | str | None:
        """Return the seat, that in `stream` when this is the one that is sent, or why there is none any more.

        None: there is none yet, or the server does not answer.
        `is_heard` tells whether anything valid came in `stream`, which is 0 before the first seat.
        """


log = logging.getLogger(__name__)

_TURN_S = 0.5
_AHEAD_OF_WRITERS = -10
_ASK_S = 1.0  # between two questions to the server
_EVENT = struct.Struct("<BI")
_RELEASE = struct.Struct("<I")
_STOP = 0xFFFFFFFF  # in place of a parcel: workers may have the pipe open yet when it is to end
_WORDS = struct.Struct("<H")
_WORDS_BYTES = 1024
_READ_BYTES = 4096


class _Event(IntEnum):
    PARCEL = 1  # came, is what it should be, and has its place
    DONE = 2  # every parcel was written
    LEFT = 3  # no longer served: a reason
    FAILED = 4  # the process ended with a fault of its own


class FeedState(msgspec.Struct, frozen=True):
    """How far a feed is."""

    datagrams: int = 0
    forged: int = 0
    poisoned: int = 0
    loss: float = 0.0
    done: int = 0
    # By the monotonic clock, the same in all processes; 0 before the first seat.
    seated_s: float = 0.0  # when the epoch was entered
    heard_s: float = 0.0  # when anything valid came last; not later than `seated_s`: nothing in this epoch yet
    assured_s: float = 0.0  # when the server said last that this epoch is the one that is sent

    @property
    def is_heard(self) -> bool:
        """Whether anything valid came in the epoch there is."""
        return self.heard_s > self.seated_s


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
        self.slots = Slots(session.window_parcels, largest + SPARE_BYTES, len(session.parcels))
        self.seen = Mailbox(FeedState, FeedState())
        self._words = mmap.mmap(-1, _WORDS_BYTES)
        self._process: BaseProcess | None = None
        self._events = self._releases = -1
        self._given, self._rest = 0, b""

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

    @property
    def is_ended(self) -> bool:
        """Whether no parcel will come any more."""
        return self.left is not None or self._given == len(self.session.parcels)

    @property
    def why(self) -> str:
        """What is known of why it `left`, beyond the reason; "" nothing."""
        (size,) = _WORDS.unpack_from(self._words)
        return self._words[_WORDS.size : _WORDS.size + size].decode()

    def arrived(self, wait_s: float | None = None) -> list[int]:
        """Return the numbers of the parcels that came since; waits for the first, `wait_s` at most; [] for none."""
        poller = select.poll()
        poller.register(self._events, select.POLLIN)
        if self.is_ended or not poller.poll(None if wait_s is None else wait_s * 1000):
            return []
        data = os.read(self._events, _READ_BYTES)
        if not data:
            self.left = Leaving.SILENT
            self.tell("the process that receives has died")
            return []
        self._rest += data
        whole = len(self._rest) - len(self._rest) % _EVENT.size
        events = list(_EVENT.iter_unpack(self._rest[:whole]))
        self._rest = self._rest[whole:]
        self.left = next((Leaving(value) for kind, value in events if kind in (_Event.LEFT, _Event.FAILED)), None)
        came = [value for kind, value in events if kind == _Event.PARCEL]
        self._given += len(came)
        return came

    def parcels(self) -> Iterator[int]:
        """Give the number of each parcel as it comes; ends when all have come, or when no more will (`left`)."""
        while not self.is_ended:
            yield from self.arrived()

    def find(self, parcel: int) -> memoryview | None:
        """Return the bytes of a parcel that has come and was not released, None for any other; in any process."""
        return self.slots.find(parcel, self.session.parcels[parcel].size)

    def release(self, parcel: int) -> None:
        """Say that a parcel is written; in any process. What `find` returned must not be looked at any more."""
        with suppress(BrokenPipeError):  # nobody receives any more
            os.write(self._releases, _RELEASE.pack(parcel))

    def state(self) -> FeedState:
        """Return how far it is."""
        return self.seen.get()

    def tell(self, words: str) -> None:
        """Have `why` return these words, in all processes."""
        data = words.encode()[: _WORDS_BYTES - _WORDS.size].decode(errors="ignore").encode()
        self._words[: _WORDS.size + len(data)] = _WORDS.pack(len(data)) + data

    def stop(self) -> None:
        """End it, whatever it does."""
        if self._process is None:
            return
        os.close(self._events)
        self.release(_STOP)
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
        # Those who write take all the CPU they get; the sender sends away whose reports come 3 s late.
        with suppress(PermissionError):
            os.nice(_AHEAD_OF_WRITERS)
        try:
            with suppress(BrokenPipeError):
                _Reception(self, told, released).run(self._group)
        except (ClonerError, OSError) as error:
            log.warning("multicast: %s", error)
            self.tell(str(error))
            with suppress(OSError):
                os.write(told, _EVENT.pack(_Event.FAILED, Leaving.SILENT))


class _Reception:
    """What the receiving process does until nobody reads of it any more."""

    def __init__(self, feed: Feed, told: int, released: int) -> None:
        self._feed = feed
        self._session = feed.session
        self._slots = feed.slots
        self._join = feed.join
        self._seen = feed.seen
        self._told = told
        self._released = released
        self._places: dict[int, object] = {}  # of parcels that others have
        self._asked_s = self._seated_s = self._assured_s = time.monotonic()
        self._is_over = False

    def run(self, group: Group) -> None:
        opened = ReceiverSocket(group)  # switches learn of it while the server is asked
        try:
            while (seat := self._join(0, False)) is None:
                if self._is_deserted(_ASK_S):
                    return
            if isinstance(seat, str):
                self._end(Leaving.OVER, seat)
                while not self._is_deserted(None):
                    pass
                return
            memory, now_s = self._slots, time.monotonic()
            self._seated_s = self._assured_s = now_s
            session = replace(self._session, stream=seat.stream)
            receiver = Receiver(session, seat.number, random.random, now_s, allocate=memory.allocate, free=memory.free)
            self._loop(receiver, Receiving(receiver, seat, opened))
        finally:
            opened.close()

    def _loop(self, receiver: Receiver, receiving: Receiving) -> None:
        is_told = False
        self._note(receiver, receiving)  # it has its seat: a session may wait for that to begin
        while True:
            whole, found = receiving.turn(_TURN_S, self._released)
            for gathering in whole:
                self._hand_over(receiving, gathering)
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

    def _hand_over(self, receiving: Receiving, gathering: Gathering) -> None:
        parcel = gathering.parcel
        if receiving.finish(gathering) is None:
            self._slots.free(gathering.room)
            receiving.receiver.settle(parcel, is_good=False)
            return
        self._places[parcel] = gathering.room
        self._slots.publish(parcel, gathering.room)
        os.write(self._told, _EVENT.pack(_Event.PARCEL, parcel))

    def _take_releases(self, receiver: Receiver) -> bool:
        """Take the word of those who write; return False when it is their last."""
        released = self._read_releases()
        for parcel in released:
            place = self._places.pop(parcel, None)
            if place is not None:
                self._slots.withdraw(parcel)
                self._slots.free(place)
                receiver.settle(parcel, is_good=True)
        return bool(released) and _STOP not in released

    def _read_releases(self) -> list[int]:
        """Return what was released, `_STOP` when it is to end; nothing when all are gone who could say so."""
        data = os.read(self._released, _READ_BYTES - _READ_BYTES % _RELEASE.size)
        return [parcel for (parcel,) in _RELEASE.iter_unpack(data)]

    def _ask(self, receiver: Receiver, receiving: Receiving) -> None:
        now_s = time.monotonic()
        if now_s - self._asked_s < _ASK_S:
            return
        self._asked_s = now_s
        seat = self._join(receiver.session.stream, receiver.heard_s > self._seated_s)
        if isinstance(seat, str):
            self._end(Leaving.OVER, seat)
        elif seat is not None:
            self._assured_s = time.monotonic()
            if seat.stream != receiver.session.stream:
                receiving.enter(seat)
                self._seated_s = receiver.heard_s

    def _end(self, reason: Leaving, why: str = "") -> None:
        if not self._is_over:
            self._is_over = True
            self._feed.tell(why)
            os.write(self._told, _EVENT.pack(_Event.LEFT, reason))

    def _is_deserted(self, wait_s: float | None) -> bool:
        """Wait; return whether nobody reads of it any more."""
        poller = select.poll()
        poller.register(self._released, select.POLLIN)
        found = poller.poll(None if wait_s is None else wait_s * 1000)
        if not found:
            return False
        released = self._read_releases()
        return not released or _STOP in released

    def _note(self, receiver: Receiver, receiving: Receiving) -> None:
        counters, rejects = receiver.counters, receiving.rejects
        seen = counters.datagrams, rejects.forged, counters.poisoned, receiver.loss, receiver.done
        self._seen.put(FeedState(*seen, self._seated_s, receiver.heard_s, self._assured_s))
