"""How many workers a restore has: one a CPU, and never so many that one node keeps the others from the server."""

from __future__ import annotations

import threading
import time

import pytest

from cloner_agent.restore.workers import MOST_AT_ONCE, MOST_WORKERS, Work, run, usual_workers
from cloner_server.admission import PLACES


@pytest.mark.parametrize(("cpus", "workers"), [(1, 1), (2, 2), (8, 8), (9, 8), (64, 8), (256, 8)])
def test_there_is_a_worker_a_cpu_up_to_a_bound(cpus: int, workers: int) -> None:
    assert usual_workers(cpus) == workers


def test_one_node_takes_no_more_than_half_of_the_places_of_a_server() -> None:
    assert 2 * max(MOST_WORKERS, MOST_AT_ONCE) <= PLACES


class Meeting(Work[int, int, int]):
    """Prepares a task only while another one is being prepared, and tells how many met."""

    ahead = 2
    at_once = 2

    def __init__(self) -> None:
        self._barrier = threading.Barrier(2, timeout=30)

    def prepare(self, task: int) -> int:
        self._barrier.wait()
        return task

    def perform(self, task: int, prepared: int) -> int:
        return prepared * 10


def test_a_worker_prepares_several_tasks_at_once() -> None:
    assert sorted(run(Meeting(), range(4), 1)) == [(task, task * 10) for task in range(4)]


class Alone(Work[int, int, int]):
    """Tells the most tasks that it prepared at once."""

    ahead = 3
    at_once = 2

    def __init__(self) -> None:
        self._now = self._most = 0

    def prepare(self, task: int) -> int:
        self._now += 1
        self._most = max(self._most, self._now)
        time.sleep(0.01)
        self._now -= 1
        return self._most

    def perform(self, task: int, prepared: int) -> int:
        return prepared


def test_many_workers_prepare_one_task_each_at_once() -> None:
    assert {most for _, most in run(Alone(), range(4 * MOST_WORKERS), MOST_WORKERS)} == {1}


def test_what_is_begun_is_given_whatever_the_tasks_wait_for() -> None:
    tasks = iter((0, None, 1, None, None, 2))
    assert [task for task, _ in run(Alone(), tasks, 1)] == [0, 1, 2]
