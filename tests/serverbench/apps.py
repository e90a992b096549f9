"""The applications of the server, made once for all the scenes of a run, and one event loop that all requests run on.

To put an application together takes 50 ms, a loop with its threads 5 ms: more than most requests.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal
from litestar import Litestar
from litestar.testing import TestClient

from cloner_server.api.app import admin_app, agent_app
from cloner_server.core import Core

_CORE: ContextVar[Core] = ContextVar("core")
_portals: list[tuple[int, BlockingPortal]] = []  # with the process whose loop it is; the innermost `one_loop` last


@contextmanager
def one_loop() -> Iterator[None]:
    """Have the requests of all clients run on one event loop, as in a server; else each makes its own."""
    with start_blocking_portal() as portal:
        _portals.append((os.getpid(), portal))
        try:
            yield
        finally:
            _portals.pop()


def agents_client(core_of: Callable[[], Core], sent_from: Callable[[], str]) -> TestClient[Any]:
    """Return a client of the port of nodes whose requests come from the address `sent_from`."""
    return _client(_agents(), core_of, sent_from)


def admins_client(core_of: Callable[[], Core]) -> TestClient[Any]:
    """Return a client of the socket of admins."""
    return _client(_admins(), core_of, lambda: "")


def _client(app: Litestar, core_of: Callable[[], Core], sent_from: Callable[[], str]) -> TestClient[Any]:
    async def of_this_core(scope: Any, receive: Any, send: Any) -> None:
        _CORE.set(core_of())  # a request is a task, with a context of its own
        await app(scope | {"client": (sent_from(), 50000)}, receive, send)

    return _Client(of_this_core)


class _Client(TestClient[Any]):
    """Of a process made by fork the loop is not: it makes its own."""

    @contextmanager
    def portal(self) -> Iterator[BlockingPortal]:
        own = [portal for pid, portal in _portals if pid == os.getpid()]
        with nullcontext(own[-1]) if own else super().portal() as portal:
            yield portal


def _core() -> Core:
    return _CORE.get()


@cache
def _agents() -> Litestar:
    return agent_app(_core)


@cache
def _admins() -> Litestar:
    return admin_app(_core)
