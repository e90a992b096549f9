"""The senders of a relay: made to be those that the head tells of, no more and no fewer.

An epoch is started once, however often it is told: its keys and its stream must never be used again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cloner_core.errors import ClonerError
from cloner_core.multicast.session import Leaving
from cloner_server.multicast.links import Link
from cloner_server.multicast.orders import (
    Admit,
    Begin,
    Command,
    Dismiss,
    EpochOrder,
    InCache,
    Limit,
    SenderNews,
    SenderOrder,
    SenderPhase,
    Settle,
    Stop,
    sender_order,
)
from cloner_server.relay.cache import Known
from cloner_server.relay.words import EpochNews, EpochTold, Numbered

log = logging.getLogger(__name__)


class Process(Protocol):
    """What is needed of `cloner_server.multicast.supervisor.Running`."""

    def news(self) -> SenderNews: ...

    def admit(self, number: int) -> None: ...

    def begin(self) -> None: ...

    def dismiss(self, number: int, reason: Leaving) -> None: ...

    def settle(self, number: int) -> None: ...

    def limit(self, rate_bps: float, floor_bps: float) -> None: ...

    def stop(self) -> None: ...

    def abandon(self) -> None: ...


@dataclass(slots=True)
class _Epoch:
    order: EpochOrder
    process: Process | None = None  # None: its packs are not all here, or it has ended before it was started
    news: SenderNews = field(default_factory=SenderNews)  # without a process
    done: int = 0  # number of the last command that was obeyed

    def now(self) -> SenderNews:
        return self.news if self.process is None else self.process.news()


@dataclass(slots=True)
class RelaySenders:
    """All senders of a relay. Safe to use from several threads."""

    launch: Callable[[SenderOrder], Process]
    ready: Callable[[bytes], Known | None]  # a pack map all of which is in the cache
    directory: str  # the cache's
    _epochs: dict[int, _Epoch] = field(default_factory=dict)
    _past: set[int] = field(default_factory=set)  # streams that were given up, and are never begun again
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def follow(self, told: Sequence[EpochTold], link: Link | None) -> None:
        """Have these epochs sent, and no others: of the others receivers keep what they have."""
        with self._lock:
            self._drop_all_but({one.order.stream for one in told})
            for one in told:
                epoch = self._epochs.setdefault(one.order.stream, _Epoch(one.order))
                if one.order.stream in self._past:
                    epoch.news = SenderNews(phase=SenderPhase.DEAD, last_words="the relay has given it up")
                self._follow(epoch, one.commands, link)

    def news(self) -> tuple[EpochNews, ...]:
        """Return how each epoch is."""
        with self._lock:
            return tuple(EpochNews(stream, one.now(), one.done) for stream, one in self._epochs.items())

    def abandon(self) -> None:
        """End all without a word."""
        with self._lock:
            self._drop_all_but(set())

    def _drop_all_but(self, streams: set[int]) -> None:
        for stream in set(self._epochs) - streams:
            self._past.add(stream)
            epoch = self._epochs.pop(stream)
            if epoch.process is not None:
                epoch.process.abandon()

    def _follow(self, epoch: _Epoch, commands: Sequence[Numbered], link: Link | None) -> None:
        if epoch.process is None and not epoch.news.is_ended:
            if any(isinstance(one.command, Stop) for one in commands):
                epoch.news = SenderNews(phase=SenderPhase.OVER)
            else:
                self._start(epoch, link)
        if epoch.process is None and not epoch.news.is_ended:
            return  # what it is told is told again
        for one in sorted(commands, key=lambda one: one.number):
            if one.number > epoch.done:
                epoch.done = one.number
                if epoch.process is not None:
                    _obey(epoch.process, one.command)

    def _start(self, epoch: _Epoch, link: Link | None) -> None:
        known = self.ready(bytes.fromhex(epoch.order.pack_map))
        if known is None or link is None:
            return
        try:
            order = sender_order(
                epoch.order,
                parcels=known.parcels,
                origin=InCache(self.directory),
                interface=link.interface,
                source=link.source(epoch.order.group),
            )
            epoch.process = self.launch(order)
        except ClonerError as refusal:
            log.error("session %s is not sent: %s", epoch.order.session, refusal)
            epoch.news = SenderNews(phase=SenderPhase.DEAD, last_words=refusal.message)
            return
        log.info("session %s is sent as stream %d", epoch.order.session, epoch.order.stream)


def _obey(process: Process, command: Command) -> None:
    match command:
        case Admit(number):
            process.admit(number)
        case Begin():
            process.begin()
        case Dismiss(number, reason):
            process.dismiss(number, reason)
        case Settle(number):
            process.settle(number)
        case Limit(rate_bps, floor_bps):
            process.limit(rate_bps, floor_bps)
        case Stop():
            process.stop()
