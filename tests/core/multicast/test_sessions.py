"""Whole sessions in virtual time: the sender and the receivers a node runs, over a network that a seed describes."""

from __future__ import annotations

from math import inf

import pytest

from multicastsim.losses import Loss
from multicastsim.peers import Traits
from multicastsim.scenario import draw
from multicastsim.world import WIRE_BLOCK_BYTES, Outcome, Scenario, World

PARCEL_BLOCKS = 2913  # 4 MiB
GIGABIT = 1e9


def run(
    receivers: int,
    loss: float,
    *,
    parcels: int = 6,
    others: tuple[tuple[str, Traits], ...] = (),
    rate_bps: float = GIGABIT,
    blocks: int = PARCEL_BLOCKS,
    block_bytes: int = 2,
) -> Outcome:
    nodes = tuple(("node", Traits(loss=Loss(loss))) for _ in range(receivers))
    scenario = Scenario(3, (blocks,) * parcels, nodes + others, rate_bps=rate_bps, block_bytes=block_bytes)
    outcome = World(scenario).run()
    assert outcome.faults == []
    return outcome


def ideal_s(parcels: int, rate_bps: float = GIGABIT, blocks: int = PARCEL_BLOCKS) -> float:
    return parcels * blocks * 1514 * 8 / rate_bps


SEEDS = 300
SLICE = 20


@pytest.mark.parametrize("first", range(1, SEEDS, SLICE))
def test_whatever_happens_every_live_node_ends_with_every_parcel(first: int) -> None:
    """As `./run soak multicast-sim`, with smaller sessions; `draw(SEED, 60)` is what failed."""
    faults = {seed: outcome.faults for seed in range(first, first + SLICE) if (outcome := small(seed)).faults}
    assert faults == {}


def small(seed: int) -> Outcome:
    return World(draw(seed, most_blocks=60)).run()


def test_a_seed_decides_everything() -> None:
    assert small(11) == small(11)


GOALS = [
    pytest.param(1, 0.0, 0.0, 0.99, id="no loss"),
    pytest.param(8, 0.01, 0.02, 0.90, id="8 receivers, 1 %"),
    pytest.param(8, 0.05, 0.08, 0.85, id="8 receivers, 5 %"),
]


@pytest.mark.parametrize(("receivers", "loss", "overhead", "goodput"), GOALS)
def test_repair_costs_little_more_than_the_worst_receiver_lost(
    receivers: int, loss: float, overhead: float, goodput: float
) -> None:
    outcome = run(receivers, loss)
    assert outcome.overhead <= overhead
    assert ideal_s(6) / outcome.done_s >= goodput


def test_time_is_flat_in_the_number_of_receivers() -> None:
    one, many = run(1, 0.01, blocks=728), run(64, 0.01, blocks=728)
    assert many.done_s <= 1.1 * one.done_s + 0.1  # beside the last round of repair, a twentieth of a second
    assert many.overhead <= 0.06
    assert many.reports_per_s <= 1100


def test_a_late_joiner_costs_what_it_missed() -> None:
    late = Traits(loss=Loss(0.0), joins_s=ideal_s(8) / 2)
    outcome = run(3, 0.0, parcels=8, others=(("node", late),))
    assert outcome.overhead <= 5 / 8  # four parcels and the one it came in
    assert outcome.over_https == 0


def test_one_slow_node_leaves_and_the_others_lose_little() -> None:
    rate = 1e8 / (1514 * 8)
    slow = Traits(rate=0.2 * rate)
    clean = run(3, 0.001, parcels=80, blocks=728, rate_bps=1e8)
    outcome = run(3, 0.001, parcels=80, blocks=728, rate_bps=1e8, others=(("node", slow),))
    assert outcome.left
    assert outcome.done_s <= 1.1 * clean.done_s


def test_harm_of_members_is_bounded() -> None:
    """Threat 19: one slow, one that asks for everything, one gone, one that sends nonsense; 16 ordinary nodes."""
    rate = 1e8 / (1514 * 8)
    harm: tuple[tuple[str, Traits], ...] = (
        ("node", Traits(rate=0.01 * rate)),
        ("greedy", Traits()),
        ("liar", Traits()),
        ("node", Traits(dies_s=0.3, returns_s=inf)),
    )
    clean = run(16, 0.005, parcels=40, blocks=728, rate_bps=1e8)
    outcome = run(16, 0.005, parcels=40, blocks=728, rate_bps=1e8, others=harm)
    assert outcome.done_s <= 1.3 * clean.done_s


@pytest.mark.parametrize("kind", ["insatiable", "staller", "alarmist"])
def test_a_member_that_means_harm_costs_a_small_group_little(kind: str) -> None:
    # Of whole blocks: what the floor lets a parcel take is reckoned by its bytes.
    clean = run(4, 0.001, parcels=40, blocks=728, rate_bps=1e8, block_bytes=WIRE_BLOCK_BYTES)
    others = ((kind, Traits()),)
    outcome = run(4, 0.001, parcels=40, blocks=728, rate_bps=1e8, others=others, block_bytes=WIRE_BLOCK_BYTES)
    assert outcome.done_s <= 1.3 * clean.done_s


def test_a_machine_that_stood_still_is_told_that_it_was_given_up() -> None:
    """It hears all else from then on, and nobody asks it or sends what it wants."""
    asleep = Traits(stands_s=1.0, wakes_s=13.0)
    outcome = run(3, 0.001, parcels=80, blocks=728, rate_bps=3e7, others=(("node", asleep),))
    assert outcome.left == {"SILENT": 1}


def test_members_that_mean_harm_together_hold_a_large_group_up_little_longer_than_one() -> None:
    stallers = (("staller", Traits(joins_s=1.0)),) * 16
    clean = run(40, 0.002, parcels=60, blocks=182, rate_bps=1e8, block_bytes=WIRE_BLOCK_BYTES)
    outcome = run(40, 0.002, parcels=60, blocks=182, rate_bps=1e8, block_bytes=WIRE_BLOCK_BYTES, others=stallers)
    assert outcome.done_s <= clean.done_s + 2.5


def test_a_session_that_is_sealed_ends_as_one_that_is_not() -> None:
    nodes = tuple(("node", Traits(loss=Loss(0.02))) for _ in range(3))
    scenario = Scenario(5, (45,) * 3, nodes, block_bytes=WIRE_BLOCK_BYTES, is_sealed=True, forged=1.0)
    outcome = World(scenario).run()
    assert outcome.faults == []
    assert outcome.forged > 0
