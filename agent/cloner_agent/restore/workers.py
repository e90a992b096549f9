"""Worker processes: tasks out, results back, and the first failure ends them all.

Processes, because placing files is Python and system calls, which threads of one interpreter do not share out.
They are made by fork(2), so that they inherit the tree without a copy.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from threading import Thread
from typing import Any, Generic, NoReturn, TypeVar

from cloner_agent.restore.errors import RestoreError
from cloner_core.allocation import keep_freed_memory
from cloner_core.errors import ClonerError

Task = TypeVar("Task")
Prepared = TypeVar("Prepared")
Result = TypeVar("Result")

MOST_WORKERS = 8
"""However many CPUs there are. Two keep up with about 1 Gbit/s (docs/performance.md), eight with four times that; and
the memory of a worker is needed for each."""
MOST_AT_ONCE = 8
"""Tasks that so many workers together prepare at once: over HTTPS so many packs are on their way. Half of the places
that a server has for all nodes (`cloner_server.admission`), so that one large node never keeps the others waiting."""
_END = object()
_SWITCH_S = 0.0005  # a thread that prepares wants the interpreter for every 16 KiB that come: 5 ms each time are long


class Work(Generic[Task, Prepared, Result]):
    """What workers do: `prepare` in a thread, some tasks ahead, because it waits; `perform` with what that gave."""

    ahead = 1
    """Tasks a worker holds beside the one that it performs."""
    at_once = 1
    """How many of these it prepares at once, in threads, as far as MOST_AT_ONCE allows."""

    def prepare(self, task: Task) -> Prepared:
        """Return what `perform` needs; runs in a thread of the worker."""
        raise NotImplementedError

    def perform(self, task: Task, prepared: Prepared) -> Result:
        """Do the task; runs in the worker's main thread."""
        raise NotImplementedError

    def start(self) -> None:
        """Make ready what a worker needs for itself; called once in each, after the fork."""


def usual_workers(cpus: int | None = None) -> int:
    """Return how many workers a machine of so many CPUs has, this one when None."""
    return min(cpus or os.cpu_count() or 1, MOST_WORKERS)


def run(
    work: Work[Task, Prepared, Result], tasks: Iterable[Task | None], workers: int
) -> Iterator[tuple[Task, Result]]:
    """Give (task, result) of every task as each is done, in any order.

    `tasks` is asked for the next one whenever a worker has room, so it may wait for it; None is for none yet, so that
    results are looked at meanwhile: it is asked again at once. Raises the ClonerError of
    the first task that failed, or RestoreError when a worker died; either way no worker is left.
    """
    context = multiprocessing.get_context("fork")
    threads = max(1, min(work.at_once, MOST_AT_ONCE // workers))
    processes: dict[Connection, BaseProcess] = {}
    held: dict[Connection, int] = {}
    queue: Iterator[Any] = iter(tasks)
    try:
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process: BaseProcess = context.Process(
                target=_serve, args=(theirs, ours, tuple(processes), work, threads), daemon=True
            )
            process.start()
            theirs.close()
            processes[ours], held[ours] = process, 0
        is_drained = False
        while True:
            is_waiting = False
            while not is_drained and (connection := _least_held(held, work.ahead)) is not None:
                task = next(queue, _END)
                if task is None or task is _END:
                    is_waiting, is_drained = task is None, task is _END
                    break
                _send(connection, task, processes[connection])
                held[connection] += 1
            busy = [connection for connection, count in held.items() if count]
            if not busy and is_drained:
                break
            for ready in wait(busy, 0 if is_waiting else None):
                assert isinstance(ready, Connection)
                answer: tuple[Task, Result] = _receive(ready, processes[ready])
                held[ready] -= 1
                yield answer
        for connection, process in processes.items():
            _send(connection, None, process)
        for process in processes.values():
            process.join()
    finally:
        for connection, process in processes.items():
            connection.close()
            if process.is_alive():
                process.kill()
            process.join()


def _least_held(held: Mapping[Connection, int], ahead: int) -> Connection | None:
    """Return the worker that holds the fewest tasks; None when each holds as many as it may."""
    connection = min(held, key=held.__getitem__)
    return connection if held[connection] <= ahead else None


def _send(connection: Connection, message: object, process: BaseProcess) -> None:
    try:
        connection.send(message)
    except (BrokenPipeError, ConnectionResetError):
        while True:  # what it said before it ended is the reason
            _receive(connection, process)


def _receive(connection: Connection, process: BaseProcess) -> Any:
    try:
        error, task, result = connection.recv()
    except (EOFError, ConnectionResetError):
        raise _died(process) from None
    if error is not None:
        raise error
    return task, result


def _died(process: BaseProcess) -> RestoreError:
    process.join(5)
    code = process.exitcode
    how = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"status {code}"
    return RestoreError(f"a restore process died with {how}", hint="the kernel's log says whether memory ran out")


def _serve(
    connection: Connection,
    other_end: Connection,
    inherited: tuple[Connection, ...],
    work: Work[Task, Prepared, Result],
    threads: int,
) -> None:
    """Be a worker until None comes, the parent goes or a task fails."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it ends us
    for end in (other_end, *inherited):
        end.close()  # else a worker would never see its parent go
    keep_freed_memory()
    sys.setswitchinterval(_SWITCH_S)
    ahead = ThreadPoolExecutor(threads)
    try:
        work.start()
        _loop(connection, work, ahead)
    except ClonerError as error:
        _end(connection, error)
    except OSError as error:
        _end(connection, RestoreError(f"a restore process failed: {error}", errno=error.errno))
    except EOFError:
        os._exit(1)  # the parent is gone
    except BaseException:  # noqa: BLE001 — told at once, whatever it is: an exit waits for the threads that prepare
        traceback.print_exc()
        os._exit(1)


def _end(connection: Connection, error: ClonerError) -> NoReturn:
    """Tell why, and end at once: what is still being prepared may wait for a server for half an hour."""
    try:
        connection.send((error, None, None))
    finally:
        os._exit(1)


def _loop(connection: Connection, work: Work[Task, Prepared, Result], ahead: ThreadPoolExecutor) -> None:
    pending: SimpleQueue[tuple[Task, Future[Prepared]] | None] = SimpleQueue()

    def receive() -> None:
        is_ended = False
        try:
            with suppress(EOFError, OSError):
                while (task := connection.recv()) is not None:
                    pending.put((task, ahead.submit(work.prepare, task)))
                is_ended = True
        finally:
            if not is_ended:
                os._exit(1)  # the parent is gone, and with it whoever wants to know; or there is no memory
            pending.put(None)

    Thread(target=receive, daemon=True).start()
    while (begun := pending.get()) is not None:
        task, prepared = begun
        connection.send((None, task, work.perform(task, prepared.result())))
