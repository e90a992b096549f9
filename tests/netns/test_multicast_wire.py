"""Sessions over real sockets and links: what is sent arrives, whole, whoever loses what."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from cloner_core.errors import InvalidError, RefusedError
from cloner_core.multicast.sender import Pace, Sent
from cloner_multicast.feed import FeedState
from cloner_multicast.sockets import Group, ReceiverSocket
from netns.multicast_yard import Show, Yard, forge, receive, send, start, yard

pytestmark = [pytest.mark.root, pytest.mark.netns, pytest.mark.timeout(180)]

_CONTEXT = multiprocessing.get_context("fork")


@dataclass
class Stage:
    """A yard, a session in it, and the processes that take part."""

    made: Yard
    show: Show
    pace: Pace = field(default_factory=lambda: Pace(200e6, 5e6))
    processes: list[BaseProcess] = field(default_factory=list)
    sent: Any = field(default_factory=_CONTEXT.Queue)
    got: Any = field(default_factory=_CONTEXT.Queue)

    @property
    def receivers(self) -> int:
        return self.made.count - 1

    def send(self, stream: int = 1, *, seated: int | None = None) -> BaseProcess:
        waited = self.receivers if seated is None else seated
        words = (self.show, self.made.address(0), self.receivers, self.pace, self.sent, stream, waited)
        return self._start(send, 0, *words)

    def receive(self, number: int, wait_s: float = 0.0) -> BaseProcess:
        return self._start(receive, number + 1, self.show, number, self.got, wait_s)

    def forge(self, for_s: float) -> BaseProcess:
        return self._start(forge, self.receivers, self.made.address(self.receivers), for_s)

    def _start(self, what: Callable[..., None], where: int, *words: Any) -> BaseProcess:
        process = start(what, self.made.of(where), *words)
        self.processes.append(process)
        return process

    def ended(self, count: int) -> list[tuple[int, list[int], Any, FeedState]]:
        return sorted((self.got.get(timeout=120) for _ in range(count)), key=lambda one: one[0])

    def total(self) -> Sent:
        sent, _ = self.sent.get(timeout=60)
        assert isinstance(sent, Sent)
        return sent


@contextmanager
def stage(tmp_path: Path, receivers: int, parcels: int, size: int = 1 << 20) -> Iterator[Stage]:
    chance = random.Random(parcels)
    contents = [chance.randbytes(chance.randrange(size // 2, size)) for _ in range(parcels)]
    with yard(receivers) as made:
        opened = Stage(made, Show(contents, tmp_path / "board"))
        try:
            yield opened
        finally:
            for process in opened.processes:
                process.kill()
                process.join()


@pytest.mark.parametrize("loss", [0.0, 0.03])
def test_every_receiver_gets_every_parcel(tmp_path: Path, loss: float) -> None:
    with stage(tmp_path, 3, 20) as it:
        if loss:
            for number in range(1, it.made.count):
                it.made.lose(number, loss)
        for number in range(3):
            it.receive(number)
        it.send()
        told, sent = it.ended(3), it.total()
    assert [one[:3] for one in told] == [(number, list(range(20)), None) for number in range(3)]
    assert all(state.forged == state.poisoned == 0 for *_, state in told)
    assert (sent.combinations > 0) == bool(loss)
    assert sent.blocks < 1.02 * sum(-(-len(content) // 1440) for content in it.show.contents)


def test_who_joins_late_costs_what_it_missed(tmp_path: Path) -> None:
    with stage(tmp_path, 2, 30) as it:
        it.pace = Pace(100e6, 5e6)
        it.receive(0)
        it.receive(1, wait_s=1.0)
        it.send(seated=1)
        told, sent = it.ended(2), it.total()
    assert [one[:3] for one in told] == [(number, list(range(30)), None) for number in range(2)]
    assert sent.blocks < 2 * sum(-(-len(content) // 1440) for content in it.show.contents)


def test_a_sender_that_was_killed_goes_on_as_another_epoch(tmp_path: Path) -> None:
    with stage(tmp_path, 2, 40) as it:
        it.pace = Pace(100e6, 5e6)
        for number in range(2):
            it.receive(number)
        first = it.send()
        first.join(1.0)
        assert first.is_alive(), "it was to be killed in the middle"
        first.kill()
        it.send(stream=2, seated=0)  # they come when they have heard nothing for a while
        told, sent = it.ended(2), it.total()
    assert [one[:3] for one in told] == [(number, list(range(40)), None) for number in range(2)]
    assert sent.blocks < 1.9 * sum(-(-len(content) // 1440) for content in it.show.contents)


def test_what_a_stranger_sends_is_counted_and_harms_nobody(tmp_path: Path) -> None:
    with stage(tmp_path, 2, 20) as it:
        it.receive(0)
        it.forge(20)
        it.send(seated=1)
        (told,) = it.ended(1)
    assert told[:3] == (0, list(range(20)), None)
    assert told[3].forged > 100
    assert told[3].poisoned == 0


@pytest.mark.parametrize(
    ("address", "port", "hops", "fault"),
    [("10.0.0.1", 4000, 1, "no multicast group"), ("239.1.1.1", 0, 1, "no port"), ("239.1.1.1", 4000, 0, "0 hops")],
)
def test_a_group_that_cannot_be_is_refused(address: str, port: int, hops: int, fault: str) -> None:
    with pytest.raises(InvalidError, match=fault):
        Group(address, port, "lo", hops)


def test_an_interface_that_is_not_there_is_named() -> None:
    with pytest.raises(RefusedError, match="there is no network interface 'nowhere0'"):
        ReceiverSocket(Group("239.1.1.1", 4000, "nowhere0"))
