"""The wire does what it is told, and the same again from the same seed."""

from __future__ import annotations

import random
from itertools import pairwise

from netns.unruly_wire import Counts, Manners, Port, is_datagram

ARP = bytes(12) + b"\x08\x06" + bytes(28)


def datagram(number: int) -> bytes:
    return bytes(12) + b"\x08\x00" + bytes(9) + b"\x11" + number.to_bytes(4, "big")


def through(manners: Manners, seed: int = 1, count: int = 4000) -> tuple[list[int], Counts]:
    counts = Counts()
    port = Port(manners, random.Random(seed), counts)
    left: list[int] = []
    for number in range(count):
        port.take(datagram(number), number / 1000)
        left += [int.from_bytes(frame[-4:], "big") for frame in port.due(number / 1000)]
    left += [int.from_bytes(frame[-4:], "big") for frame in port.due(1e9)]
    assert port.is_empty
    return left, counts


def test_a_port_with_manners_passes_everything_in_order() -> None:
    assert through(Manners())[0] == list(range(4000))


def test_a_port_does_as_it_is_told() -> None:
    left, counts = through(Manners(loss=0.05, duplicates=0.1, late=0.2))
    assert 120 < counts.lost < 280
    assert 250 < counts.doubled < 550
    assert 600 < counts.delayed < 1000
    assert counts.carried == 4000
    assert len(left) == 4000 - counts.lost + counts.doubled
    assert left != sorted(left)


def test_losses_come_in_runs() -> None:
    left, counts = through(Manners(bursts=0.003, burst_most=30))
    gaps = [after - before - 1 for before, after in pairwise(left) if after - before > 1]
    assert sum(gaps) == counts.lost > 0
    assert max(gaps) > 5


def test_the_same_seed_does_the_same() -> None:
    manners = Manners(loss=0.05, bursts=0.002, duplicates=0.1, late=0.2)
    assert through(manners, 7)[0] == through(manners, 7)[0]
    assert through(manners, 7)[0] != through(manners, 8)[0]


def test_what_is_no_datagram_passes() -> None:
    port = Port(Manners(loss=1.0), random.Random(1), Counts())
    for _ in range(20):
        port.take(ARP, 0.0)
    assert port.due(0.0) == [ARP] * 20
    assert not is_datagram(ARP)
