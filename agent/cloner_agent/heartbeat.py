"""The heartbeat: a process of its own, so that a stage that computes, waits or dies never silences the node.

It sends progress and log, brings orders back, and reports the end when the working process is gone. Must not touch
disks or the console.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from typing import Literal

import msgspec

from cloner_agent.failures import is_destructive
from cloner_agent.logqueue import LogQueue
from cloner_agent.protocol import Server, ServerFault
from cloner_core.errors import ClonerError
from cloner_core.lldp import Neighbor
from cloner_core.mailbox import Mailbox
from cloner_core.mending import remedy
from cloner_core.messages import Beat, BeatReply, Cause, ConsoleReport, Failure, LogLine, Progress, Stage

log = logging.getLogger(__name__)

_POLL_S = 0.25
_LINES = 200
_KEPT_LINES = 2000


class Pulse:
    """What one heartbeat does; the process below only repeats it."""

    def __init__(
        self,
        server: Server,
        progress: Mailbox[Progress],
        orders: Mailbox[BeatReply],
        logs: LogQueue,
        *,
        explain: Callable[[Failure], None] = lambda _: None,
        neighbors: Callable[[], tuple[Neighbor, ...]] = tuple,
        console: Callable[[], ConsoleReport] = ConsoleReport,
    ) -> None:
        """Take the seams; `explain` sends what else is known of a death, once the server has heard of it."""
        self._explain = explain
        self._console = console
        self._neighbors = neighbors
        self._told: tuple[Neighbor, ...] = ()
        self._server = server
        self._progress = progress
        self._orders = orders
        self._logs = logs
        self._kept: list[LogLine] = []

    def beat(self) -> None:
        """Send one beat; lines are kept until acknowledged; a refusal of the beat itself becomes the order to hold.

        An answer that does not come changes nothing: the deploy goes on without a network as long as it can.
        """
        self._kept += self._logs.drain(_LINES)
        del self._kept[:-_KEPT_LINES]
        batch = tuple(self._kept[:_LINES])
        heard = self._neighbors()
        news = heard if heard != self._told else ()
        try:
            beat = Beat(progress=self._progress.get(), log=batch, neighbors=news, console=self._console())
            reply = self._server.beat(beat)
        except ServerFault as error:
            self._orders.put(BeatReply(order="hold", reason=error.message))
        except ClonerError as error:
            log.debug("beat: %s", error)
        else:
            del self._kept[: len(batch)]
            self._told = heard
            self._orders.put(reply)

    def report_death(self) -> None:
        """Tell the server that the working process ended without a word."""
        stage = self._progress.get().stage
        failure = Failure(
            stage=stage,
            cause=Cause.INTERNAL,
            message="the agent's process died (killed by the kernel for memory, or a crash)",
            hint=remedy(Cause.INTERNAL).do,
            is_destroyed=is_destructive(stage),
        )
        try:
            self.beat()
            self._server.fail(failure)
            self._explain(failure)
        except ClonerError as error:
            log.debug("report of death: %s", error)


class Heartbeat:
    """Runs `Pulse` in a process made by fork; start it while this process has one thread."""

    def __init__(
        self,
        server: Server,
        every_s: float,
        logs: LogQueue,
        *,
        explain: Callable[[Failure], None] = lambda _: None,
        neighbors: Callable[[], tuple[Neighbor, ...]] = tuple,
        console: Callable[[], ConsoleReport] = ConsoleReport,
    ) -> None:
        self._progress = Mailbox(Progress, Progress(stage=Stage.HELLO))
        self._orders = Mailbox(BeatReply, BeatReply())
        self._pulse = Pulse(
            server, self._progress, self._orders, logs, explain=explain, neighbors=neighbors, console=console
        )
        self._every_s = every_s
        self._flags = Mailbox(_Flag, _Flag("run"))
        self._process: multiprocessing.process.BaseProcess | None = None

    def start(self) -> None:
        """Begin to beat."""
        # fork: the child needs the attempt's key, which must never be written anywhere.
        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=self._live, args=(os.getpid(),), name="cloner-heartbeat")
        self._process.start()

    def show(self, progress: Progress) -> None:
        """Have the next beat carry `progress`."""
        if not self._progress.put(progress):
            self._progress.put(msgspec.structs.replace(progress, text=progress.text[:200]))

    def order(self) -> BeatReply:
        """Return the server's latest order; raises nothing, even when the process is gone."""
        return self._orders.get()

    def stop(self, timeout_s: float = 15.0) -> None:
        """Send a last beat with what is left of the log and end the process."""
        if self._process is None:
            return
        self._flags.put(_Flag("stop"))
        self._process.join(timeout_s)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process = None

    def _live(self, parent: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        logging.getLogger().handlers.clear()
        live(
            self._pulse,
            every_s=self._every_s,
            is_stopped=lambda: self._flags.get().word == "stop",
            is_orphan=lambda: os.getppid() != parent,
            stage=lambda: self._progress.get().stage,
        )


class _Flag(msgspec.Struct, frozen=True):
    word: Literal["run", "stop"]


def live(
    pulse: Pulse,
    *,
    every_s: float,
    is_stopped: Callable[[], bool],
    is_orphan: Callable[[], bool],
    stage: Callable[[], Stage],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Beat every `every_s` seconds, and at once when the stage changes, until stopped or orphaned."""
    due, shown = clock(), stage()
    while not is_stopped():
        if is_orphan():
            pulse.report_death()
            return
        now = stage()
        if clock() >= due or now is not shown:
            shown = now
            due = clock() + every_s
            pulse.beat()
        sleep(_POLL_S)
    pulse.beat()
