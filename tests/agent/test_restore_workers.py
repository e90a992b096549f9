"""How many workers a restore has: one a CPU, and never so many that one node keeps the others from the server."""

from __future__ import annotations

import pytest

from cloner_agent.restore.workers import MOST_WORKERS, usual_workers
from cloner_server.admission import PLACES


@pytest.mark.parametrize(("cpus", "workers"), [(1, 1), (2, 2), (8, 8), (9, 8), (64, 8), (256, 8)])
def test_there_is_a_worker_a_cpu_up_to_a_bound(cpus: int, workers: int) -> None:
    assert usual_workers(cpus) == workers


def test_one_node_takes_no_more_than_half_of_the_places_of_a_server() -> None:
    assert 2 * MOST_WORKERS <= PLACES
