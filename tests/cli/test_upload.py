"""A publish is waited for as long as the server checks it, and an answer that is lost on its way is no failure."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from socket import SO_KEEPALIVE, SOL_SOCKET
from typing import Any

import httpx2
import msgspec
import pytest

from clibench.desk import Desk, InProcess
from cloner_cli.api import Api
from cloner_cli.nodefile import pinned_client
from cloner_cli.upload import ServerSink
from cloner_core.errors import ConflictError, ExitStatus, UnreachableError
from cloner_core.image.version import Draft
from store_images import BOOTABLE, Image, make_image, some_contents

_LOST = httpx2.ReadError("connection reset")


class Lossy(InProcess):
    """Loses the answers to publishes; `is_taken` decides whether the server takes the request."""

    is_taken = True

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/v1/publish":
            self.waits_s = request.extensions["timeout"]["read"]
            if self.is_taken:
                super().handle_request(request)
            raise _LOST
        return super().handle_request(request)


@pytest.fixture
def lossy(desk: Desk) -> Lossy:
    desk.transport = Lossy(desk.scene, desk._pass_time)
    return desk.transport


def sink(desk: Desk) -> ServerSink:
    world = desk.invocation().world
    api = Api(world.open_client(Path("/")), "the server", "tester", away_hint="is it running?")
    return ServerSink(api, monotonic=world.monotonic, sleep=world.sleep)


def new_image(desk: Desk, name: str = "fresh") -> Image:
    image = make_image(some_contents(7) | BOOTABLE, name)
    image.put(desk.scene.core.catalog.store)
    return image


def draft_of(image: Image, **changes: Any) -> Draft:
    return msgspec.structs.replace(image.draft, author="tester", source="golden", message="new", **changes)


@pytest.mark.parametrize("after", [0, None], ids=["a capture", "an import"])
def test_a_publish_is_waited_for_without_end_and_a_lost_answer_is_asked_for(
    desk: Desk, lossy: Lossy, after: int | None
) -> None:
    record = sink(desk).publish(draft_of(new_image(desk), after=after))
    assert (lossy.waits_s, record) == (None, desk.scene.core.catalog.store.version("fresh", 1))


def test_a_server_that_comes_back_is_asked(desk: Desk, lossy: Lossy) -> None:
    lossy.is_taken = False
    image = new_image(desk)

    def begin_again(sleeps: int) -> None:
        lossy.is_away = sleeps < 5
        if sleeps == 10:  # what was checked when the answer was lost is published now
            InProcess(desk.scene, desk._pass_time).handle_request(
                httpx2.Request("POST", "http://cloner/v1/publish", content=msgspec.msgpack.encode(draft))
            )

    desk.on_sleep = begin_again
    draft = draft_of(image, after=0)
    assert sink(desk).publish(draft).number == 1


@pytest.mark.parametrize("is_away", [True, False])
def test_what_was_not_published_is_a_failure_after_some_patience(desk: Desk, lossy: Lossy, *, is_away: bool) -> None:
    lossy.is_taken = False

    def begin(sleeps: int) -> None:
        lossy.is_away = is_away

    desk.on_sleep = begin
    with pytest.raises(UnreachableError, match=r"does not answer.*image-details --image fresh") as caught:
        sink(desk).publish(draft_of(new_image(desk), after=0))
    assert (caught.value.exit_status, desk.now_s >= 120) == (ExitStatus.UNREACHABLE, True)


@pytest.mark.parametrize(
    "change",
    [
        lambda draft: msgspec.structs.replace(draft, author="somebody"),
        lambda draft: msgspec.structs.replace(draft, source="another"),
        lambda draft: msgspec.structs.replace(draft, message="old"),
    ],
    ids=["author", "source", "message"],
)
def test_the_version_of_somebody_else_is_not_taken_for_ones_own(
    desk: Desk, lossy: Lossy, change: Callable[[Draft], Draft]
) -> None:
    lossy.is_taken = False
    draft = draft_of(new_image(desk), after=0)

    def publish_another(sleeps: int) -> None:
        if sleeps == 1:
            content = msgspec.msgpack.encode(change(draft))
            assert desk.scene.admins.post("/v1/publish", content=content).status_code == 200

    desk.on_sleep = publish_another
    with pytest.raises(UnreachableError):
        sink(desk).publish(draft)


def test_the_same_file_imported_before_is_not_taken_for_this_import(desk: Desk, lossy: Lossy) -> None:
    draft = draft_of(new_image(desk))
    assert sink(desk).publish(draft).number == 1
    lossy.is_taken = False
    with pytest.raises(UnreachableError):
        sink(desk).publish(draft)


def test_what_the_server_refuses_is_not_waited_for(desk: Desk) -> None:
    with pytest.raises(ConflictError):
        sink(desk).publish(draft_of(new_image(desk, "golden"), after=0))
    assert desk.sleeps == 0


def test_a_server_that_vanishes_while_it_is_waited_for_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    options: list[tuple[int, int, int]] = []

    def transport(*, socket_options: Any = (), **more: Any) -> httpx2.BaseTransport:
        options.extend(socket_options)
        return httpx2.MockTransport(lambda request: httpx2.Response(200))

    monkeypatch.setattr(httpx2, "HTTPTransport", transport)
    pinned_client("head", 8443, ssl.create_default_context(), "token").close()
    assert (SOL_SOCKET, SO_KEEPALIVE, 1) in options
