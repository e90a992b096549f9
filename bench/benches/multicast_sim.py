"""Sessions of multicast in virtual time, from one receiver to ten thousand: the classes a node runs (G2–G4, G11).

Time is that of the simulated link, so the machine does not matter; CPU seconds are those of the simulation.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from benches import report
from multicastsim.losses import Loss
from multicastsim.peers import Traits
from multicastsim.world import Scenario, World

_LINK_BPS = 1e9
_FRAME_BITS = 1514 * 8
_PARCELS = 8
_FULL, _QUARTER = 2913, 728  # blocks of a parcel of 4 MiB, of 1 MiB
_CASES = (
    (1, 0.0, _FULL),
    (1, 0.01, _FULL),
    (8, 0.01, _FULL),
    (8, 0.05, _FULL),
    (32, 0.01, _FULL),
    (10, 0.01, _QUARTER),
    (100, 0.01, _QUARTER),
    (1000, 0.01, _QUARTER),
    (10_000, 0.01, _QUARTER),
)
_SMALL_MOST = 100  # receivers of a small run


@dataclass(frozen=True, slots=True)
class SimulatedRun:
    """What one session came to."""

    receivers: int
    loss: float  # of each receiver alone
    parcel_blocks: int
    link_share: float  # of what the link could carry in blocks and their headers
    overhead: float  # datagrams beyond each block once
    reports_per_s: float  # at the sender, those it asked for included
    unasked: int  # reports in all that nobody asked for
    seconds: float  # until the last receiver had everything, on the link
    cpu_s: float


def main(argv: list[str]) -> int:
    """Run the bench; the sessions are the same each time, so each is run once."""
    asked = report.options("multicast-sim", argv)
    evidence = report.Evidence("multicast-sim")
    runs = [_run(*case) for case in _CASES if not asked.small or case[0] <= _SMALL_MOST]
    if asked.evidence:
        print(evidence.write(runs, link_bps=_LINK_BPS, parcels=_PARCELS))
    return 0


def _run(receivers: int, loss: float, blocks: int) -> SimulatedRun:
    started_s = time.process_time()
    nodes = (("node", Traits(loss=Loss(loss))),) * receivers
    # Blocks of four bytes count on the wire as whole ones: ten thousand receivers hold their parcels in memory.
    outcome = World(Scenario(1, (blocks,) * _PARCELS, nodes, rate_bps=_LINK_BPS, block_bytes=4)).run()
    if outcome.faults:
        raise SystemExit(f"bench: {receivers} receivers: {'; '.join(outcome.faults)}")
    ideal_s = _PARCELS * blocks * _FRAME_BITS / _LINK_BPS
    run = SimulatedRun(
        receivers,
        loss,
        blocks,
        round(ideal_s / outcome.done_s, 4),
        round(outcome.overhead, 4),
        round(outcome.reports_per_s, 1),
        outcome.unasked,
        round(outcome.done_s, 4),
        round(time.process_time() - started_s, 1),
    )
    print(
        f"{receivers:6} receivers, {loss:4.0%} loss, parcels of {blocks:4} blocks: {run.link_share:6.1%} of the link, "
        f"{run.overhead:6.2%} more datagrams, {run.reports_per_s:5.0f} reports/s ({run.unasked} unasked), "
        f"{run.seconds:6.3f} s; simulated in {run.cpu_s:.0f} s of CPU",
        flush=True,
    )
    return run
