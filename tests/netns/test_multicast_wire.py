"""Sessions over real sockets and links: what is sent arrives, whole, whoever loses what."""

from __future__ import annotations

import multiprocessing
import random
from typing import Any

import pytest

from cloner_core.multicast.sender import Pace, Sent
from netns.multicast_yard import Show, Yard, receive, send, start, yard

pytestmark = [pytest.mark.root, pytest.mark.netns, pytest.mark.timeout(180)]

_CONTEXT = multiprocessing.get_context("fork")


def _run(made: Yard, show: Show, pace: Pace) -> tuple[list[Any], Sent]:
    """Have a session; return what each receiver has, and what was sent."""
    count = made.count - 1
    sent: Any = _CONTEXT.Queue()
    got: Any = _CONTEXT.Queue()
    sender = start(send, made.of(0), show, made.address(0), count, pace, sent)
    address = sent.get(timeout=30)
    nodes = [start(receive, made.of(number + 1), show, number, address, got) for number in range(count)]
    try:
        told = sorted((got.get(timeout=120) for _ in nodes), key=lambda one: one[0])
        total, _ = sent.get(timeout=60)
        return told, total
    finally:
        for process in (sender, *nodes):
            process.kill()
            process.join()


def _contents(count: int, size: int) -> list[bytes]:
    chance = random.Random(count)
    return [chance.randbytes(chance.randrange(size // 2, size)) for _ in range(count)]


@pytest.mark.parametrize("loss", [0.0, 0.03])
def test_every_receiver_gets_every_parcel(loss: float) -> None:
    show = Show(_contents(20, 1 << 20))
    with yard(3) as made:
        if loss:
            for number in range(1, made.count):
                made.lose(number, loss)
        told, sent = _run(made, show, Pace(200e6, 5e6))
    assert [(number, got, left) for number, got, left, _ in told] == [
        (number, list(range(20)), None) for number in range(3)
    ]
    assert all(state.forged == state.poisoned == 0 for *_, state in told)
    assert (sent.combinations > 0) == bool(loss)
