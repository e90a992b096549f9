"""What a capture at rest sends: by its own attempt, every request proven, and nothing that has arrived before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloner_agent.atrest.sink import HttpsSink
from cloner_agent.client import Credentials, Endpoint, Transport
from cloner_agent.failures import StageError
from cloner_core.image.digest import digest
from cloner_core.image.pack import Pack
from cloner_core.image.version import Base
from cloner_core.messages import Cause, Secret

CREDENTIALS = Credentials(Secret("c"), Ed25519PrivateKey.generate())


@dataclass
class Wire:
    """The server, as transports see it."""

    there: set[str] = field(default_factory=set)
    said: list[tuple[str, str]] = field(default_factory=list)
    transports: int = 0
    base: bytes = msgspec.msgpack.encode(None)

    def connect(self, _endpoint: Endpoint) -> Transport:
        self.transports += 1
        return cast(Transport, self)

    def request(self, method: str, path: str, body: bytes = b"", **words: Any) -> bytes:
        assert words["credentials"] is CREDENTIALS
        name = path.removeprefix("/agent/v1/attempts/7-1-ab/")
        self.said.append((method, name))
        if name == "missing":
            return msgspec.json.encode([one for one in msgspec.json.decode(body)["packs"] if one not in self.there])
        return self.base if name.startswith("base/") else b"{}"

    def sink(self) -> HttpsSink:
        endpoint = Endpoint("server", 1, "")
        return HttpsSink(endpoint, CREDENTIALS, "/agent/v1/attempts/7-1-ab", self.connect)


def pack(content: bytes) -> Pack:
    return Pack(digest(content), content, len(content), b"")


def test_a_pack_that_a_former_attempt_has_sent_is_not_sent_again() -> None:
    old, new = pack(b"old"), pack(b"new")
    wire = Wire({old.digest.hex()})
    for one in (old, new):
        wire.sink().put_pack(one)
    assert [said for said in wire.said if said[0] == "PUT"] == [("PUT", f"packs/{new.digest.hex()}")]


def test_each_thread_has_a_connection_of_its_own() -> None:
    wire = Wire()
    sink = wire.sink()
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda number: sink.put_pack(pack(bytes([number]))), range(30)))
    assert 1 <= wire.transports <= 3
    assert len([said for said in wire.said if said[0] == "PUT"]) == 30


def test_what_the_server_has_is_asked_for_by_the_image_of_the_task() -> None:
    base = Base(b"", (), 3)
    wire = Wire(base=msgspec.msgpack.encode(base))
    assert wire.sink().base("web") == base
    assert wire.said == [("GET", "base/web")]
    wire.base = b"\xc1"
    with pytest.raises(StageError) as caught:
        wire.sink().base("web")
    assert caught.value.cause is Cause.PROTOCOL
