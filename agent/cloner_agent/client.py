"""Talks to the server: HTTPS with a pinned CA and a fixed name, one connection kept alive, patience when it is away.

Must not decide what an answer means for the deploy; refusals come out as `ServerFault`.
"""

from __future__ import annotations

import http.client
import logging
import os
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloner_agent.protocol import Interrupt, ServerFault
from cloner_core.decoding import UNREADABLE
from cloner_core.errors import IntegrityError, UnreachableError
from cloner_core.messages import Fault, Secret, proof_statement

log = logging.getLogger(__name__)

SERVER_NAME = "cloner-server"
"""The name in the server's certificate; nodes connect by address and check this name."""

NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL (x509_vfy.h); Python has no name for it."""

PATIENCE_S = 30 * 60.0
"""How long a request is tried again while the server or the network is away."""

CONTROL_BYTES = 4 << 20
_CONNECT_S = 10.0
_READ_S = 60.0
_KEEP_ALIVE = {socket.TCP_KEEPIDLE: 20, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 6}  # seconds, seconds, probes
_WAITS_S = (0.2, 0.5, 1.0, 2.0, 5.0)
_AGAIN = (
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
_BUSY_HINT = "check cable, switch port and that 'cloner serve' runs"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the server is and what makes it ours; a plain value, so that worker processes can be given it."""

    host: str
    port: int
    ca_pem: str = field(repr=False)
    is_time_checked: bool = False


@dataclass(frozen=True, slots=True)
class Credentials:
    """What an attempt proves itself with; the key exists in the memory of this node alone."""

    credential: Secret
    key: Ed25519PrivateKey = field(repr=False)


class _PinnedConnection(http.client.HTTPSConnection):
    """Connects to an address and checks the certificate for the fixed name."""

    def __init__(self, endpoint: Endpoint, context: ssl.SSLContext, timeout_s: float) -> None:
        super().__init__(endpoint.host, endpoint.port, timeout=timeout_s, context=context)
        self._pinned = context

    def connect(self) -> None:
        """Open TCP and TLS; keep-alive probes find a server that vanished without a word."""
        plain = socket.create_connection((self.host, self.port), timeout=_CONNECT_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # Some answers may take half an hour; the kernel by itself would ask after two whether anybody is there.
        for option, value in _KEEP_ALIVE.items():
            plain.setsockopt(socket.IPPROTO_TCP, option, value)
        plain.settimeout(self.timeout)
        self.sock = self._pinned.wrap_socket(plain, server_hostname=SERVER_NAME)


def make_context(endpoint: Endpoint) -> ssl.SSLContext:
    """Return a context that accepts our CA alone and, until the clock was set, certificates of any date."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=endpoint.ca_pem)
    if not endpoint.is_time_checked:
        context.verify_flags |= ssl.VerifyFlags(NO_CHECK_TIME)
    return context


Connect = Callable[[Endpoint, float], http.client.HTTPConnection]
"""Makes a connection, not yet opened, with a time limit for reads in seconds."""


def pinned(endpoint: Endpoint, read_s: float) -> http.client.HTTPConnection:
    """Return a connection that will check CA and name."""
    return _PinnedConnection(endpoint, make_context(endpoint), read_s)


class Transport:
    """One kept-alive connection with retries; safe to carry through fork, where it opens its own."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        patience_s: float = PATIENCE_S,
        interrupt: Interrupt | None = None,
        connect: Connect = pinned,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.endpoint = endpoint
        self._patience_s = patience_s
        self._interrupt = interrupt
        self._connect = connect
        self._sleep = sleep
        self._clock = clock
        self._connection: http.client.HTTPConnection | None = None
        self._owner = 0
        self._is_used = False  # the connection has answered before

    def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        credentials: Credentials | None = None,
        credential: Secret | None = None,
        limit_bytes: int = CONTROL_BYTES,
        patience_s: float | None = None,
        read_s: float = _READ_S,
    ) -> bytes:
        """Return the body of the answer to one request, which must be safe to send twice.

        `credentials` add bearer and proof; `credential` alone is the bearer, which is enough for blobs.

        Raises ServerFault for an answer that is a refusal, UnreachableError when patience ends, IntegrityError for an
        answer longer than `limit_bytes`.
        """
        headers = {"Accept": "application/json"}
        bearer = credentials.credential if credentials is not None else credential
        if bearer is not None:
            headers["Authorization"] = f"Bearer {bearer.value}"
        if credentials is not None:
            headers["Cloner-Proof"] = credentials.key.sign(
                proof_statement(method, path, body, credentials.credential.value)
            ).hex()
        if body:
            headers["Content-Type"] = "application/json"
        patience = self._patience_s if patience_s is None else patience_s
        deadline = self._clock() + patience
        tries = 0
        while True:
            try:
                status, answer = self._once(method, path, body, headers=headers, limit_bytes=limit_bytes, read_s=read_s)
            except (OSError, http.client.HTTPException) as error:
                was_used = self._is_used
                self.close()
                if was_used:
                    # The server closes what was silent for some seconds; that is no trouble worth a word or a wait.
                    continue
                reason = f"{type(error).__name__}: {error}"
            else:
                if status < HTTPStatus.BAD_REQUEST:
                    return answer
                if status not in _AGAIN and status < HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise _fault(status, answer)
                reason = f"HTTP {status}"
            wait_s = _WAITS_S[min(tries, len(_WAITS_S) - 1)]
            tries += 1
            if self._clock() + wait_s > deadline:
                raise UnreachableError(
                    f"{self.endpoint.host}:{self.endpoint.port} did not answer {method} {path} "
                    f"in {patience:.0f} s ({reason})",
                    hint=_BUSY_HINT,
                )
            log.log(
                logging.WARNING if tries in (1, 5) or tries % 30 == 0 else logging.DEBUG,
                "%s %s: %s; trying again (%d)",
                method,
                path,
                reason,
                tries,
            )
            if self._interrupt is not None:
                self._interrupt()
            self._sleep(wait_s)

    def close(self) -> None:
        """Drop the connection; the next request opens another."""
        if self._connection is not None and self._owner == os.getpid():
            self._connection.close()
        self._connection = None
        self._is_used = False

    def _once(
        self, method: str, path: str, body: bytes, *, headers: dict[str, str], limit_bytes: int, read_s: float
    ) -> tuple[int, bytes]:
        connection = self._open(read_s)
        connection.request(method, path, body or None, headers)
        response = connection.getresponse()
        answer = response.read(limit_bytes + 1)
        if len(answer) > limit_bytes:
            self.close()
            raise IntegrityError(f"the answer to {method} {path} is longer than {limit_bytes} bytes")
        if response.length:
            raise http.client.IncompleteRead(answer, response.length)
        self._is_used = True
        if response.will_close:
            self.close()
        return response.status, answer

    def _open(self, read_s: float) -> http.client.HTTPConnection:
        if self._connection is None or self._owner != os.getpid():
            self._connection = self._connect(self.endpoint, read_s)
            self._is_used = False
            self._owner = os.getpid()
        if self._connection.sock is not None:
            self._connection.sock.settimeout(read_s)
        self._connection.timeout = read_s
        return self._connection


def _fault(status: int, answer: bytes) -> ServerFault:
    try:
        fault = msgspec.json.decode(answer, type=Fault)
    except UNREADABLE:
        fault = Fault(error=f"the server answered HTTP {status} without saying why")
    return ServerFault(status, fault)
