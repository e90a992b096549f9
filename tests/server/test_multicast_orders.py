"""What server and sender say to each other: lines that come and go whole, and keys that no log shows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

import msgspec
import pytest

from cloner_core.messages import Secret
from cloner_core.multicast.sealing import Rejects
from cloner_core.multicast.sender import Sent
from cloner_core.multicast.session import Leaving
from cloner_core.seats import ParcelList
from cloner_server.multicast.orders import (
    Admit,
    Begin,
    Command,
    Dismiss,
    InStore,
    Limit,
    ReceiverNews,
    SenderNews,
    SenderOrder,
    SenderPhase,
    Settle,
    Stop,
)
from cloner_server.multicast.process import Lines

MASTER = "5a" * 32
ORDER = SenderOrder(
    session="7",
    stream=1,
    origin=InStore("/srv/store"),
    pack_map="00" * 32,
    parcels=ParcelList(("11" * 32,), (1000,)),
    interface="eth0",
    source="192.0.2.1",
    group="239.255.67.1",
    port=47000,
    rate_bps=1e9,
    floor_bps=5e7,
    master=Secret(MASTER),
)


class Pipes:
    """Both ends of the pipes of a sender."""

    def __init__(self) -> None:
        self.sender_in, self.server_out = os.pipe()
        self.server_in, self.sender_out = os.pipe()
        self.lines = Lines(self.sender_in, self.sender_out)
        os.set_blocking(self.server_in, False)

    def say(self, data: bytes) -> None:
        os.write(self.server_out, data)

    def hear(self) -> bytes:
        """Return what has come to the server."""
        with suppress(BlockingIOError):
            return os.read(self.server_in, 1 << 20)
        return b""

    def end(self) -> None:
        """Be a server that is gone."""
        if self.server_out >= 0:
            os.close(self.server_out)
            self.server_out = -1


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    made = Pipes()
    yield made
    made.end()
    for fd in (made.sender_in, made.server_in, made.sender_out):
        os.close(fd)


def test_an_order_hides_its_keys_and_arrives_with_them() -> None:
    assert MASTER not in repr(ORDER)
    assert msgspec.json.decode(msgspec.json.encode(ORDER), type=SenderOrder) == ORDER


@pytest.mark.parametrize(
    "command", [Admit(3), Begin(), Dismiss(3, Leaving.SLOW), Settle(3), Limit(1e8, 1e6), Stop()], ids=repr
)
def test_every_command_arrives_as_it_is(command: Command) -> None:
    assert msgspec.json.decode(msgspec.json.encode(command), type=Command) == command


def test_news_arrive_as_they_are() -> None:
    receivers = (
        ReceiverNews(1, None),
        ReceiverNews(2, 0.25, 7, True, 0.01),
        ReceiverNews(3, 9.0, 1, left=Leaving.LOSS, sought_s=12.5, stuck_s=3.0),
    )
    news = SenderNews(
        phase=SenderPhase.SENDING,
        address="192.0.2.1",
        port=5,
        sent=Sent(datagrams=9, wire_bytes=12_000, dropped=1),
        rejects=Rejects(forged=3),
        receivers=receivers,
        notes=("a note",),
    )
    assert msgspec.json.decode(msgspec.json.encode(news), type=SenderNews) == news


@pytest.mark.parametrize("phase", SenderPhase)
def test_only_who_ended_unbidden_is_dead(phase: SenderPhase) -> None:
    news = SenderNews(phase=phase)
    assert news.is_dead == (phase is SenderPhase.DEAD)
    assert news.is_ended == (phase in (SenderPhase.DEAD, SenderPhase.OVER))


def test_lines_come_whole_however_they_are_cut(pipes: Pipes) -> None:
    pipes.say(b"the order\nfirst\nsec")
    assert pipes.lines.first() == b"the order"
    assert pipes.lines.read() == [b"first"]
    assert pipes.lines.read() == []
    pipes.say(b"ond\n\nthi")
    assert pipes.lines.read() == [b"second", b""]
    assert not pipes.lines.is_ended
    pipes.end()
    assert pipes.lines.read() == []
    assert pipes.lines.is_ended


def test_a_server_that_is_gone_before_its_order_is_whole_is_known(pipes: Pipes) -> None:
    pipes.say(b"half an ord")
    pipes.end()
    pipes.lines.first()
    assert pipes.lines.is_ended


def test_a_line_that_the_pipe_does_not_take_goes_out_by_and_by(pipes: Pipes) -> None:
    pipes.say(b"the order\n")
    pipes.lines.first()
    line = b"x" * 500_000
    pipes.lines.write(line)
    heard = pipes.hear()
    assert 0 < len(heard) < len(line)
    while pipes.lines.is_busy:
        heard += pipes.hear()
    assert heard + pipes.hear() == line + b"\n"
