"""Packs come over a connection of each thread's own; one that is gone stops the restore with its name."""

from __future__ import annotations

import pickle
import threading
from http import HTTPStatus

import pytest

from cloner_agent.client import Endpoint, Transport
from cloner_agent.failures import AbortError, StageError
from cloner_agent.host import ToolError
from cloner_agent.packs import HttpsPackSource
from cloner_agent.protocol import ServerFault
from cloner_core.image.packmap import PackRef
from cloner_core.messages import Cause, Fault, Secret

PACK = PackRef(bytes(31) + b"\1", 4, 10, 1)
NAME = PACK.digest.hex()


class _Transport(Transport):
    made = 0
    asked: list[tuple[str, int]]
    refusal: ServerFault | None = None

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        type(self).made += 1

    def request(self, method: str, path: str, body: bytes = b"", **more: object) -> bytes:
        if self.refusal is not None:
            raise self.refusal
        limit = more["limit_bytes"]
        assert isinstance(limit, int)
        self.asked.append((path, limit))
        return path.encode()


@pytest.fixture
def transport() -> type[_Transport]:
    class Fresh(_Transport):
        asked: list[tuple[str, int]] = []  # noqa: RUF012 — one list for each test

    return Fresh


def _source(transport: type[_Transport]) -> HttpsPackSource:
    return HttpsPackSource(Endpoint("192.0.2.1", 1, ""), Secret("c"), "ab" * 32, transport)


def test_a_pack_is_two_requests_and_never_longer_than_the_map_says(transport: type[_Transport]) -> None:
    base = f"/agent/v1/versions/{'ab' * 32}"
    stored, placement = _source(transport).fetch(0, PACK)
    assert (stored, placement) == (f"{base}/packs/{NAME}".encode(), f"{base}/placements/{NAME}".encode())
    assert transport.asked[0] == (f"{base}/packs/{NAME}", PACK.stored_size)


def test_threads_share_no_connection(transport: type[_Transport]) -> None:
    source = _source(transport)
    threads = [threading.Thread(target=lambda: [source.fetch(0, PACK) for _ in range(3)]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert transport.made == 2


def test_a_pack_that_is_gone_is_named(transport: type[_Transport]) -> None:
    transport.refusal = ServerFault(HTTPStatus.NOT_FOUND, Fault(error="x"))
    with pytest.raises(StageError, match=NAME) as caught:
        _source(transport).fetch(0, PACK)
    assert caught.value.cause is Cause.MISSING_PACK


@pytest.mark.parametrize(
    "error",
    [
        StageError(Cause.MISSING_PACK, "gone", hint="h"),
        AbortError("enough"),
        ServerFault(409, Fault(error="no", hint="h", status=4)),
        ToolError(("mkfs", "x"), 1, "broken"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_the_pipe_from_a_worker(error: StageError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), again.hint) == (str(error), error.hint)
    assert getattr(again, "cause", None) == getattr(error, "cause", None)
