"""A relay at work: tells its head everything it has to say, and makes so what the answer says.

Two threads speak to the head. One has always a turn there that is held until there is something new; the other tells
what is new here at once.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from cloner_core.errors import ClonerError, InvalidError, RefusedError
from cloner_server import VERSION
from cloner_server.multicast.links import Link
from cloner_server.multicast.supervisor import Running, Supervisor
from cloner_server.relay.cache import PackCache
from cloner_server.relay.fetching import Fetcher, Parts
from cloner_server.relay.senders import RelaySenders
from cloner_server.relay.words import PROTOCOL, RelayLink, RelayOrders, RelayTurn

log = logging.getLogger(__name__)

HEADLESS_S = 600.0
"""After which a relay that does not reach its head sends no more."""
_LINK_S = 10.0  # between two looks at the interface
_AGAIN_S = 0.5
_AGAIN_MOST_S = 5.0
_APART_S = 0.2  # between two turns that tell news
_HEADS_KEPT = 8


class Head(Protocol):
    """The way to the head."""

    def turn(self, turn: RelayTurn) -> RelayOrders:
        """Tell, and return what is to be done. Raises UnreachableError, RefusedError, or another error of ours."""


class HeadAndParts(Head, Parts, Protocol):
    """The same, with what the head gives of versions."""


@dataclass(slots=True)
class Relay:
    """One relay; `run` is for its main thread, all else for any."""

    head: Head
    cache: PackCache
    fetcher: Fetcher
    senders: RelaySenders
    find_link: Callable[[], Link]  # raises ClonerError when there is none
    steady: Callable[[], float] = time.monotonic
    boot: str = field(default_factory=lambda: secrets.token_hex(8))
    stopping: threading.Event = field(default_factory=threading.Event)
    greeted: threading.Event = field(default_factory=threading.Event)  # the head has answered
    refusal: ClonerError | None = None  # why it stopped by itself
    _news: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _count: int = 0
    _orders: RelayOrders | None = None  # the newest
    _heads: list[str] = field(default_factory=list)  # that were restarted since
    _heard_s: float = 0.0
    _link: tuple[float, Link | None, str] = (-1e9, None, "")  # when it was looked at, what was seen, why there is none

    def tell(self) -> None:
        """Have the head told at once: something is new."""
        self._news.set()

    def run(self) -> None:
        """Work until `stopping` is set. Raises RefusedError or InvalidError when the head wants no such relay."""
        self._heard_s = self.steady()
        self.fetcher.start()
        threads = [threading.Thread(target=run, daemon=True) for run in (self._listen, self._tell_news)]
        for thread in threads:
            thread.start()
        self.stopping.wait()
        self._news.set()
        self.senders.abandon()
        if self.refusal is not None:
            raise self.refusal

    def turn(self, *, is_held: bool) -> None:
        """Take one turn with the head; raises what `Head.turn` does."""
        orders = self.head.turn(self._said(is_held=is_held))
        with self._lock:
            self._heard_s = self.steady()
            if self._is_newer(orders):
                self._orders = orders
        self.greeted.set()
        self._follow()

    def _said(self, *, is_held: bool) -> RelayTurn:
        link, fault = self._look()
        with self._lock:
            self._count += 1
            return RelayTurn(
                protocol=PROTOCOL,
                version=VERSION,
                boot=self.boot,
                number=self._count,
                seen=self._orders.state if self._orders else "",
                is_held=is_held,
                link=_told(link),
                fault=fault,
                cache_used_bytes=self.cache.used_bytes,
                cache_limit_bytes=self.cache.limit_bytes,
                fetching=self.fetcher.progress(),
                epochs=self.senders.news(),
            )

    def _is_newer(self, orders: RelayOrders) -> bool:
        """Whether an answer was not overtaken on its way by a later one."""
        if self._orders is None or orders.head == self._orders.head:
            return self._orders is None or orders.number > self._orders.number
        if orders.head in self._heads:
            return False
        self._heads = [*self._heads, self._orders.head][-_HEADS_KEPT:]
        return True

    def _follow(self) -> None:
        with self._lock:
            if self._orders is not None:
                self.fetcher.want(self._orders.wanted)
                self.senders.follow(self._orders.epochs, self._link[1])

    def _look(self) -> tuple[Link | None, str]:
        looked_s, link, fault = self._link
        if self.steady() - looked_s >= _LINK_S:
            try:
                link, fault = self.find_link(), ""
            except ClonerError as error:
                link, fault = None, error.message[:500]
            self._link = (self.steady(), link, fault)
        return link, fault

    # Each in a thread of its own

    def _listen(self) -> None:
        wait_s = _AGAIN_S
        while not self.stopping.is_set():
            if self._try(is_held=True):
                wait_s = _AGAIN_S
                continue
            if self.steady() - self._heard_s >= HEADLESS_S:
                log.warning("the head has not been heard of for %.0f s: nothing is sent any more", HEADLESS_S)
                self.senders.abandon()
            self.stopping.wait(wait_s)
            wait_s = min(2 * wait_s, _AGAIN_MOST_S)

    def _tell_news(self) -> None:
        while not self.stopping.is_set():
            self._news.wait()
            self._news.clear()
            if not self.stopping.is_set():
                self._try(is_held=False)
            self.stopping.wait(_APART_S)

    def _try(self, *, is_held: bool) -> bool:
        try:
            self.turn(is_held=is_held)
        except (RefusedError, InvalidError) as error:
            self.refusal = error
            self.stopping.set()
        except ClonerError as error:
            log.warning("the head is asked again: %s", error)
        except Exception:  # a bug must not end what is being sent
            log.exception("the head is asked again")
        else:
            return True
        return False


@contextmanager
def relaying(
    head: HeadAndParts, cache: PackCache, find_link: Callable[[], Link], stopping: threading.Event
) -> Iterator[Relay]:
    """Give a relay that is ready to `run`; its senders and its fetching end with the context."""

    def changed(running: Running) -> None:
        news = running.news()
        if news.is_dead and news.exit_status and news.exit_status > 0:  # a signal says nothing of what it read
            fetcher.suspect(bytes.fromhex(running.order.pack_map))
        relay.tell()

    def tell() -> None:
        relay.tell()

    supervisor, fetcher = Supervisor(changed), Fetcher(head, cache, tell)
    senders = RelaySenders(supervisor.start, fetcher.ready, str(cache.files.root))
    relay = Relay(head, cache, fetcher, senders, find_link, stopping=stopping)
    try:
        yield relay
    finally:
        supervisor.close()
        fetcher.close()


def _told(link: Link | None) -> RelayLink | None:
    if link is None:
        return None
    address6 = str(link.address6 or "")
    return RelayLink(link.interface, str(link.address), link.speed_bps, link.budget_bps, link.notes, address6)
