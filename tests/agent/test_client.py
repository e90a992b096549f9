"""Requests are tried again while the server is away, proven with the attempt's key, and bounded."""

from __future__ import annotations

import http.client
import io
from collections.abc import Callable

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloner_agent.client import Credentials, Endpoint, Transport
from cloner_agent.failures import AbortError
from cloner_agent.protocol import ServerFault
from cloner_core.errors import ExitStatus, IntegrityError, UnreachableError
from cloner_core.messages import Fault, Secret, proof_statement

ENDPOINT = Endpoint("192.0.2.1", 8443, "")
Answer = tuple[int, bytes] | OSError


class _Response:
    will_close = False

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self._body = io.BytesIO(body)
        self.length = len(body)

    def read(self, limit: int) -> bytes:
        data = self._body.read(limit)
        self.length -= len(data)
        return data


class _Network:
    """Plays answers; each connection is one object, as with http.client."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, str, bytes | None, dict[str, str]]] = []
        self.connections = 0
        self.now = 0.0
        self.transport = Transport(
            ENDPOINT, connect=self._connect, sleep=self._sleep, clock=lambda: self.now, patience_s=60
        )
        self.on_sleep: Callable[[], None] = lambda: None

    def _sleep(self, seconds: float) -> None:
        self.now += seconds
        self.on_sleep()

    def _connect(self, endpoint: Endpoint, read_s: float) -> http.client.HTTPConnection:
        self.connections += 1
        network = self

        class Connection(http.client.HTTPConnection):
            def request(self, method: str, url: str, body: object = None, headers: object = None, **_: object) -> None:
                network.requests.append((method, url, body, dict(headers or {})))  # type: ignore[arg-type, call-overload]

            def getresponse(self) -> http.client.HTTPResponse:
                answer = network.answers.pop(0) if len(network.answers) > 1 else network.answers[0]
                if isinstance(answer, OSError):
                    raise answer
                return _Response(*answer)  # type: ignore[return-value]

        return Connection(endpoint.host, endpoint.port)


def test_a_request_goes_over_one_connection_again_and_again() -> None:
    network = _Network((200, b"a"))
    assert [network.transport.request("GET", "/x") for _ in range(3)] == [b"a"] * 3
    assert network.connections == 1


def test_a_connection_the_server_closed_in_a_pause_is_opened_anew_at_once() -> None:
    network = _Network((200, b"a"), ConnectionResetError(104, "reset"), (200, b"b"))
    assert network.transport.request("GET", "/x") == b"a"
    assert network.transport.request("POST", "/beat", b"{}", patience_s=0) == b"b"
    assert (network.connections, network.now) == (2, 0.0)


@pytest.mark.parametrize(
    "trouble",
    [ConnectionResetError(104, "reset"), TimeoutError("slow"), (503, b""), (500, b"")],
    ids=["reset", "timeout", "503", "500"],
)
def test_a_server_that_comes_back_is_asked_again(trouble: Answer) -> None:
    network = _Network(trouble, trouble, (200, b"back"))
    assert network.transport.request("GET", "/x") == b"back"
    assert len(network.requests) == 3


def test_patience_ends() -> None:
    network = _Network(ConnectionRefusedError(111, "refused"))
    with pytest.raises(UnreachableError, match="did not answer GET /x in 60 s"):
        network.transport.request("GET", "/x")
    assert 50 <= network.now <= 60


def test_without_patience_a_request_is_made_once() -> None:
    network = _Network(ConnectionRefusedError(111, "refused"))
    with pytest.raises(UnreachableError):
        network.transport.request("POST", "/beat", b"{}", patience_s=0)
    assert len(network.requests) == 1


def test_a_refusal_is_not_asked_again_and_says_why() -> None:
    fault = Fault(error="task 7 is aborted", hint="look", faults=("a", "b"), status=ExitStatus.REFUSED)
    network = _Network((409, msgspec.json.encode(fault)))
    with pytest.raises(ServerFault) as caught:
        network.transport.request("POST", "/commit", b"{}")
    assert caught.value.fault == fault
    assert "task 7 is aborted" in str(caught.value)
    assert len(network.requests) == 1


def test_a_refusal_of_something_else_on_that_port_is_told_as_such() -> None:
    network = _Network((404, b"<html>"))
    with pytest.raises(ServerFault, match="HTTP 404 without saying why"):
        network.transport.request("GET", "/x")


def test_an_order_to_abort_ends_the_waiting() -> None:
    network = _Network(ConnectionRefusedError(111, "refused"))

    def interrupt() -> None:
        if network.now > 5:
            raise AbortError("enough")

    network.transport._interrupt = interrupt
    with pytest.raises(AbortError):
        network.transport.request("GET", "/x")


def test_more_bytes_than_allowed_are_never_returned() -> None:
    network = _Network((200, b"x" * 11))
    with pytest.raises(IntegrityError, match="longer than 10 bytes"):
        network.transport.request("GET", "/x", limit_bytes=10)


def test_a_proof_covers_method_path_body_and_credential() -> None:
    key = Ed25519PrivateKey.generate()
    network = _Network((200, b"{}"))
    network.transport.request("POST", "/a/beat", b'{"x":1}', credentials=Credentials(Secret("token"), key))
    _, _, _, headers = network.requests[0]
    statement = proof_statement("POST", "/a/beat", b'{"x":1}', "token")
    key.public_key().verify(bytes.fromhex(headers["Cloner-Proof"]), statement)
    assert headers["Authorization"] == "Bearer token"


def test_credentials_are_not_shown() -> None:
    assert "token" not in repr(Credentials(Secret("token"), Ed25519PrivateKey.generate()))
