"""Wakes requests that are held until something happens to a node: they cost no thread while they wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class _Held:
    loop: asyncio.AbstractEventLoop
    event: asyncio.Event


@dataclass(frozen=True, slots=True)
class Callboard:
    """Who waits to be called, by node; safe to use from several threads."""

    _held: dict[str, list[_Held]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def listening(self, node: str) -> Iterator[asyncio.Event]:
        """Give an event of the running loop that is set when `node` is called from now on."""
        held = _Held(asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._held.setdefault(node, []).append(held)
        try:
            yield held.event
        finally:
            with self._lock:
                self._held[node].remove(held)
                if not self._held[node]:
                    del self._held[node]

    def call(self, nodes: Iterable[str]) -> None:
        """Wake the requests that are held for `nodes`, once what they are to see is committed."""
        with self._lock:
            woken = [held for node in nodes for held in self._held.get(node, ())]
        for held in woken:
            held.loop.call_soon_threadsafe(held.event.set)


async def either(first: asyncio.Event, second: asyncio.Event, timeout_s: float) -> None:
    """Wait until one of them is set, at most `timeout_s`."""
    waits = [asyncio.create_task(event.wait()) for event in (first, second)]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
