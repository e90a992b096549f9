"""The real listener of agents, with its TLS and its audit, in a thread of this process; and who talks to it.

The clock of the scene stays ours, so what only time brings about can be tried over real sockets.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from cloner_agent.client import Endpoint, pinned
from cloner_server.api.app import agent_app
from cloner_server.audit import audited
from cloner_server.listeners import listener, tcp_socket
from serverbench.scene import Scene

_READY_S = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as it came off the wire."""

    status_code: int
    head: bytes
    content: bytes

    @property
    def text(self) -> str:
        """Return the body as text."""
        return self.content.decode(errors="replace")

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.content)


@dataclass
class Wire:
    """One connection to the server, kept alive; stands where `Scene.agents` is, so that its agents use it."""

    endpoint: Endpoint
    heard: Callable[[Answer], None] = lambda _: None
    _connection: http.client.HTTPConnection | None = field(default=None, init=False)

    def request(self, method: str, path: str, content: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        """Send one request, its path as it is given, and return the answer."""
        if self._connection is None:
            self._connection = pinned(self.endpoint, 30.0)
        try:
            self._connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in (headers or {}).items():
                self._connection.putheader(name, value)
            if content:
                self._connection.putheader("Content-Length", str(len(content)))
            self._connection.endheaders(content or None)
            came = self._connection.getresponse()
            answer = Answer(came.status, str(came.headers).encode(), came.read())
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        if came.will_close:
            self.close()
        self.heard(answer)
        return answer

    def get(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        """Send GET."""
        return self.request("GET", path, headers=headers)

    def post(self, path: str, content: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        """Send POST."""
        return self.request("POST", path, content, headers)

    def close(self) -> None:
        """Drop the connection; the next request makes another."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None


@contextmanager
def served(scene: Scene) -> Iterator[Wire]:
    """Serve the agents' application of `scene` with TLS on loopback; its agents talk over it from now on."""
    core = scene.core
    opened = tcp_socket("127.0.0.1", 0, "the API of nodes (TLS)")
    server = listener(audited(cast(Any, agent_app(lambda: core)), core.audit, core.clock), core.site)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([opened])), name="agents-listener")
    thread.start()
    wire = Wire(Endpoint("127.0.0.1", opened.getsockname()[1], core.site.ca_pem.decode()))
    try:
        _wait(server, thread)
        scene.agents = cast(Any, wire)
        yield wire
    finally:
        wire.close()
        server.should_exit = True
        thread.join()
        opened.close()


def _wait(server: Any, thread: threading.Thread) -> None:
    for _ in range(int(_READY_S / 0.02)):
        if server.started or not thread.is_alive():
            break
        thread.join(0.02)
    assert server.started, "the listener did not start"
