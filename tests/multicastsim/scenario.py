"""What is so in one run, drawn from its seed: all faults mixed, each of them in some runs."""

from __future__ import annotations

import random
from dataclasses import replace
from math import inf

from multicastsim.losses import Loss
from multicastsim.peers import Traits
from multicastsim.world import WIRE_BLOCK_BYTES, Scenario

_DATAGRAM_BITS = 1514 * 8


def draw(seed: int, most_blocks: int = 3000) -> Scenario:
    """Return the scenario of a seed, of at most about `most_blocks` blocks."""
    chance = random.Random(seed)
    parcels = _parcels(chance, most_blocks)
    # However small the parcels are, one takes longer than an answer in a local network.
    slowest_bps = sum(parcels) / len(parcels) * _DATAGRAM_BITS / 0.001
    rate_bps = min(chance.choice((1e8, 1e9, 1e9, 1e10)), slowest_bps)
    takes_s = sum(parcels) * _DATAGRAM_BITS / rate_bps
    receivers = chance.choice((1, 1, 2, 2, 3, 3, 5, 5, 8, 8, 20))
    harm = chance.random() < 0.35
    common = _loss(chance)
    peers: list[tuple[str, Traits]] = [("node", _node(chance, common, takes_s, rate_bps)) for _ in range(receivers)]
    if harm:
        peers += [
            (chance.choice(("greedy", "silent", "liar", "poisoner")), Traits(joins_s=chance.random() * takes_s))
            for _ in range(chance.randint(1, 2))
        ]
    restarts = sorted(chance.uniform(0, takes_s * 1.5 + 0.1) for _ in range(chance.choice((0, 0, 0, 1, 2))))
    scenario = Scenario(
        seed,
        parcels,
        tuple(peers),
        rate_bps=rate_bps,
        shared_loss=_loss(chance) if chance.random() < 0.2 else Loss(0.0),
        block_bytes=chance.choice((2, 16, 16, 33, WIRE_BLOCK_BYTES if sum(parcels) < 600 else 16)),
        window_parcels=chance.choice((4, 5, 8, 16)),
        is_sealed=chance.random() < 0.12,
        forged=chance.choice((0.0, 0.1, 1.0)),
        restarts_s=tuple(restarts),
        gathers_s=chance.choice((0.0, 0.0, 0.15, 2.0)),
    )
    # Drawn last: all else is what it was of the same seed.
    liars = [
        (chance.choice(("insatiable", "staller", "alarmist")), Traits(joins_s=chance.random() * takes_s))
        for _ in range(chance.choice((0, 0, 0, 0, 1)))
    ]
    if chance.random() < 0.1:
        stands_s = chance.random() * takes_s
        peers[0] = "node", replace(peers[0][1], stands_s=stands_s, wakes_s=stands_s + chance.choice((0.2, 4.0, 8.0)))
    return replace(scenario, peers=(*peers, *liars))


def _parcels(chance: random.Random, most_blocks: int) -> tuple[int, ...]:
    largest = chance.choice((1, 8, 45, 100, 400, 1500))
    parcels = [chance.randint(max(1, largest // 3), largest) for _ in range(chance.choice((1, 3, 10, 40)))]
    while sum(parcels) > most_blocks:
        parcels.pop()
    return tuple(parcels or [largest])


def _loss(chance: random.Random) -> Loss:
    part = chance.choice((0.0, 0.0, 0.001, 0.01, 0.05, 0.1))
    return Loss(part, chance.choice((1.0, 1.0, 5.0, 60.0)))


def _node(chance: random.Random, common: Loss, takes_s: float, rate_bps: float) -> Traits:
    """Return one node: mostly as the others are."""
    datagrams_per_s = rate_bps / _DATAGRAM_BITS
    node = Traits(
        loss=common if chance.random() < 0.7 else _loss(chance),
        report_loss=chance.choice((0.0, 0.0, 0.05, 0.3)),
        delay_s=chance.choice((0.0001, 0.0005, 0.005)),
    )
    fault = chance.randrange(14)
    if fault == 0:
        node = replace(node, jitter_s=chance.choice((0.001, 0.03)))
    elif fault == 1:
        node = replace(node, duplicates=0.2)
    elif fault == 2:
        slow = datagrams_per_s * chance.choice((0.01, 0.2, 0.7))
        node = replace(node, rate=slow, buffer=chance.choice((100, 20_000)))
    elif fault == 3:
        node = replace(node, write_s=chance.choice((0.02, 0.3)))
    elif fault <= 6:
        node = replace(node, joins_s=chance.random() * takes_s * 1.2)
    elif fault == 7:
        dies_s = chance.random() * takes_s
        node = replace(node, dies_s=dies_s, returns_s=chance.choice((inf, dies_s + chance.choice((0.3, takes_s)))))
    elif fault == 8:
        node = replace(node, loss=Loss(chance.choice((0.3, 0.6, 0.95)), chance.choice((1.0, 30.0))))
    return node
