"""One erase from the accepted hello to the end: plan confirmed, disks guarded, erased, looked at, receipt.

Nothing on a disk changes before the server confirmed the plan. A disk that is not shown to be erased fails the task,
and then there is no receipt. Must not know how a way works (`ways`), nor what happens after a failure (`ending`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from cloner_agent.attempt import Record, Tools
from cloner_agent.erase.crew import Outcome, Progress, work
from cloner_agent.erase.ways import Means, erase_by
from cloner_agent.erase.witness import Checked, Witness
from cloner_agent.failures import StageError, cause_of
from cloner_agent.planreport import confirm_plan
from cloner_core.describing import describe_disk, sendable
from cloner_core.erasing.plan import ErasePlan, PlannedErase, disk_key, erase_digest, plan_erase, render_erase
from cloner_core.erasing.words import ErasedDisk, EraseReceiptBody, EraseTask, Way
from cloner_core.errors import ClonerError
from cloner_core.facts import Disk, Facts
from cloner_core.messages import Cause, PlanReport, Stage

log = logging.getLogger(__name__)

_POLL_S = 1.0
_REREAD_S = 60.0


@dataclass(frozen=True, slots=True)
class _Done:
    """What one disk came to before it was looked at."""

    way: Way
    evidence: tuple[str, ...]
    checked: Checked | None  # None: not looked at yet
    seconds: float


class EraseJob:
    """One attempt at an erase; `record.is_destroyed` tells, after an exception, whether a disk was touched."""

    def __init__(
        self,
        tools: Tools,
        task: EraseTask,
        facts: Facts,
        record: Record,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._tools = tools
        self._task = task
        self._facts = facts
        self._record = record
        self._sleep = sleep
        self._formats: dict[str, threading.Lock] = {disk.serial: threading.Lock() for disk in facts.disks}

    def run(self) -> None:
        """Do all of it; returns when the machine was switched off, restarted, or released from holding."""
        tools, reporter = self._tools, self._tools.reporter
        log.info("node %s: erase by '%s'", self._task.node, self._task.order.method)
        reporter.enter(Stage.PLAN)
        plan = plan_erase(self._facts, self._task)
        log.info("%s", render_erase(plan))
        confirm_plan(tools.server, PlanReport(digest=erase_digest(plan), rendered=render_erase(plan)))

        reporter.enter(Stage.GUARD)
        self._guard(plan)
        witnesses = [Witness(one.disk, self._task.seed, plan.verify) for one in plan.disks]
        self._look(witnesses)
        reporter.check()

        reporter.enter(Stage.ERASE)
        self._record.is_destroyed = True
        done = self._erase(plan, witnesses)
        reporter.enter(Stage.READBACK)
        disks = self._read_back(plan, witnesses, done)

        tools.machine.sync()
        reporter.commit()
        reporter.enter(Stage.RECEIPT)
        tools.server.receipt(self._receipt(plan, disks))
        self._end(plan)

    def _guard(self, plan: ErasePlan) -> None:
        """Look at the machine again: each disk is still the one planned for, and nobody else holds it."""
        tools = self._tools
        present = {disk.path: disk for disk in tools.probe().disks}
        for one in plan.disks:
            now = present.get(one.disk.path)
            if now is None or (disk_key(now), now.wwn) != (disk_key(one.disk), one.disk.wwn):
                raise StageError(Cause.NO_DISK, f"{one.disk.path} is not the disk any more that the plan was made for")
        for one in plan.disks:
            for path in (one.disk.path, *one.disk.paths):
                tools.stop_holders(path, tools.run)

    def _look(self, witnesses: list[Witness]) -> None:
        """Look at all disks before the first erase, which may reach other disks of the plan too."""
        progress = Progress([witness.total_bytes for witness in witnesses])

        def look(index: int) -> None:
            witnesses[index].look(lambda count: progress.add(index, count))

        looked = work(len(witnesses), look, progress, self._show("look at", len(witnesses)))
        for error in looked.errors.values():
            raise error

    def _erase(self, plan: ErasePlan, witnesses: list[Witness]) -> dict[int, _Done]:
        progress = Progress([one.disk.size_bytes for one in plan.disks])

        def erase(index: int) -> _Done:
            return self._erase_one(plan.disks[index], witnesses[index], lambda done: progress.set(index, done))

        outcome = work(len(plan.disks), erase, progress, self._show("erase", len(plan.disks)))
        self._require_all(plan, outcome)
        return outcome.values

    def _erase_one(self, one: PlannedErase, witness: Witness, at: Callable[[float], None]) -> _Done:
        disk, started = one.disk, time.monotonic()
        means = Means(self._tools.run, lambda share: at(share * disk.size_bytes), self._sleep)
        for number, way in enumerate(one.ways, start=1):
            # A controller takes one format at a time, whichever of its namespaces it is for.
            is_alone = way in (Way.FORMAT, Way.FORMAT_CRYPTO)
            with self._formats[disk.serial] if is_alone else contextlib.nullcontext():
                evidence = erase_by(means, disk, way, one.passes)
            checked = None
            try:
                if way is Way.DISCARD:
                    # No disk says for certain what discarded blocks read as, so all of them are read.
                    checked = witness.check(way, is_full=True, seen=_adding(at))
            except StageError as error:
                if error.cause is not Cause.NOT_ERASED or number == len(one.ways):
                    raise
                log.warning("%s; it is overwritten instead", error.message)
                continue
            return _Done(way, evidence, checked, time.monotonic() - started)
        raise AssertionError("a plan has a way for each disk")

    def _read_back(self, plan: ErasePlan, witnesses: list[Witness], done: dict[int, _Done]) -> tuple[ErasedDisk, ...]:
        self._tools.machine.drop_caches()
        progress = Progress([witness.total_bytes for witness in witnesses])

        def look(index: int) -> Checked:
            way = done[index].way
            checked = done[index].checked or witnesses[index].check(way, seen=lambda count: progress.add(index, count))
            self._require_blank(plan.disks[index].disk, way)
            return checked

        outcome = work(len(plan.disks), look, progress, self._show("read back", len(plan.disks)))
        self._require_all(plan, outcome)
        return tuple(
            self._erased(one.disk, plan, witnesses[index], done[index], outcome.values[index])
            for index, one in enumerate(plan.disks)
        )

    def _require_blank(self, disk: Disk, way: Way) -> None:
        run = self._tools.run
        run(("blockdev", "--rereadpt", disk.path), timeout_s=_REREAD_S, accept=(0, 1))  # 1: it has no table to forget
        listed = run(("wipefs", "--json", "--output", "TYPE", disk.path), timeout_s=_REREAD_S).stdout
        if found := json.loads(listed or "{}", strict=False).get("signatures", []):
            kinds = ", ".join(str(one.get("type")) for one in found)
            raise StageError(Cause.NOT_ERASED, f"{disk.path} still shows {kinds} after {way.value}")

    def _erased(self, disk: Disk, plan: ErasePlan, witness: Witness, done: _Done, checked: Checked) -> ErasedDisk:
        evidence = [*done.evidence, "no signature is found on it"]
        if witness.unreadable:
            evidence.append(f"{witness.unreadable} pieces could not be read before, and are blank now")
        return ErasedDisk(
            path=disk.path,
            serial=disk.serial,
            wwn=disk.wwn,
            model=disk.model,
            size_bytes=disk.size_bytes,
            way=done.way,
            result="erased",
            evidence=tuple(map(sendable, evidence)),
            checked="full" if done.checked is not None else plan.verify,
            places=checked.places,
            bytes_read=checked.bytes_read,
            seconds=round(done.seconds, 3),
        )

    def _require_all(self, plan: ErasePlan, outcome: Outcome[_Done] | Outcome[Checked]) -> None:
        """Raise one StageError that says of every disk what became of it, unless all went well."""
        if not outcome.errors:
            return
        stage = self._tools.reporter.stage
        lines = []
        for index, one in enumerate(plan.disks):
            error = outcome.errors.get(index)
            said = error.message if isinstance(error, ClonerError) else f"{type(error).__name__}: {error}"
            good = "erased, not looked at" if stage is Stage.ERASE else "erased and read back"
            lines.append(f"{describe_disk(one.disk)}: {good if error is None else f'NOT ERASED: {said}'}")
        first = outcome.errors[min(outcome.errors)]
        count = f"{len(outcome.errors)} of {len(plan.disks)} disks are not erased"
        text = "\n  - ".join((count, *lines)) if len(plan.disks) > 1 else lines[0]
        raise StageError(cause_of(first, stage), text, hint=getattr(first, "hint", "")) from first

    def _show(self, what: str, count: int) -> Callable[[int, int], None]:
        text = f"{what} {count} disk{'s' * (count != 1)}"
        return lambda done, total: self._tools.reporter.tick(done, total, "bytes", text)

    def _receipt(self, plan: ErasePlan, disks: tuple[ErasedDisk, ...]) -> EraseReceiptBody:
        reporter = self._tools.reporter
        return EraseReceiptBody(
            task_id=self._task.task_id,
            attempt_id=self._task.attempt_id,
            node=self._task.node,
            plan_digest=erase_digest(plan),
            disks=disks,
            left=tuple(map(sendable, plan.left)),
            stages=reporter.times(),
            notes=tuple(map(sendable, (*plan.notes, *reporter.notes))),
        )

    def _end(self, plan: ErasePlan) -> None:
        """Switch off, restart, or wait until the server wants the machine: there is nothing on it to boot."""
        tools = self._tools
        tools.reporter.enter(Stage.REBOOT)
        if plan.then == "hold":
            tools.reporter.console.erased()
            while tools.reporter.order().order != "retry":
                self._sleep(_POLL_S)
        try:
            tools.server.rebooting()
        except ClonerError as error:
            log.debug("rebooting: %s", error)
        if plan.then == "off":
            tools.reporter.console.off("erased")
            tools.machine.power_off()
            return
        tools.reporter.console.reboot("erased")
        tools.machine.reboot()


def _adding(at: Callable[[float], None]) -> Callable[[int], None]:
    """Return what tells `at` the sum of what it is told."""
    total = 0

    def add(count: int) -> None:
        nonlocal total
        total += count
        at(total)

    return add
