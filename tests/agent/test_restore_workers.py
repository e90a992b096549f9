"""The workers of a restore: how many, what they prepare at once, who gets a task, and how each of them ends."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import pytest

from cloner_agent.restore.errors import RestoreError
from cloner_agent.restore.workers import MOST_AT_ONCE, MOST_WORKERS, Work, run, usual_workers
from cloner_core.errors import IntegrityError
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


class Failing(Work[int, int, int]):
    """Fails at its first task, while others are still being prepared."""

    ahead = 3

    def prepare(self, task: int) -> int:
        time.sleep(60.0 if task else 0.0)
        return task

    def perform(self, task: int, prepared: int) -> int:
        raise IntegrityError("it is not what was asked for")


def test_a_failure_waits_for_nothing_that_is_still_on_its_way() -> None:
    begun = time.monotonic()
    with pytest.raises(IntegrityError, match="not what was asked for"):
        list(run(Failing(), range(4), 1))
    assert time.monotonic() - begun < 30


def test_what_a_worker_said_before_it_ended_is_the_reason() -> None:
    """Whoever gives tasks may be late, and finds nobody to take the next one."""

    def tasks() -> Iterator[int]:
        yield 0
        time.sleep(1.0)  # it has failed by then
        yield 1

    with pytest.raises(IntegrityError, match="not what was asked for"):
        list(run(Failing(), tasks(), 1))


class Exhausted(Failing):
    """Fails with what nobody foresaw."""

    def perform(self, task: int, prepared: int) -> int:
        raise MemoryError


def test_a_failure_that_nobody_foresaw_waits_for_nothing_either() -> None:
    begun = time.monotonic()
    with pytest.raises(RestoreError, match="died with status 1"):
        list(run(Exhausted(), range(4), 1))
    assert time.monotonic() - begun < 30


class Unthreaded(Work[int, int, int]):
    """Cannot begin a thread, as when memory or processes run out."""

    def start(self) -> None:
        ThreadPoolExecutor.submit = self._submit  # type: ignore[assignment]

    def _submit(self, *_: object) -> NoReturn:
        raise RuntimeError("can't start new thread")


def test_a_worker_that_cannot_go_on_ends() -> None:
    with pytest.raises(RestoreError, match="died with status"):
        list(run(Unthreaded(), range(3), 1))


class Held(Work[int, None, int]):
    """Is kept at its first task until all have been given; tells who performed each."""

    ahead = 3

    def __init__(self) -> None:
        self.are_given = multiprocessing.get_context("fork").Event()

    def prepare(self, task: int) -> None:
        pass

    def perform(self, task: int, prepared: None) -> int:
        if task == 0:
            assert self.are_given.wait(60)
        return os.getpid()


def test_who_has_least_to_do_gets_the_next_task() -> None:
    work, performed = Held(), dict[int, int]()

    def tasks() -> Iterator[int | None]:
        yield 0
        for task in range(1, 5):
            while len(performed) < task - 1:  # one at a time
                time.sleep(0.01)
                yield None
            yield task
        work.are_given.set()

    for task, who in run(work, tasks(), 2):
        performed[task] = who
    assert {performed[task] == performed[0] for task in range(1, 5)} == {False}
