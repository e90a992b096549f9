"""Threads of their own for work on the store that takes long, or waits for its lock.

Those that all requests share answer boot scripts, DHCP and heartbeats: nothing in them may wait for an export or a gc.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_PUTS, _PUBLISHES, _UPKEEP = 6, 4, 8  # a put holds its body in memory, a publish checks with all CPUs


@dataclass(frozen=True, slots=True)
class StoreWork:
    """Runs what is asked of the store; each kind waits for threads behind its own kind alone."""

    _puts: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_PUTS, "store-puts"))
    _publishes: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_PUBLISHES, "store-publishes"))
    _upkeep: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_UPKEEP, "store-upkeep"))

    async def put(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what keeps one part, or looks which are there."""
        return await _run(self._puts, partial(work, *args, **kwargs))

    async def publish(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what publishes a version."""
        return await _run(self._publishes, partial(work, *args, **kwargs))

    async def keep_up(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what checks, counts, removes or writes anew."""
        return await _run(self._upkeep, partial(work, *args, **kwargs))


async def _run(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, work)
