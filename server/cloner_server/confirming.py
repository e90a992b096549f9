"""Looks after clones that have not confirmed: by SSH where that is the way, and once more when their time is up.

Every look is outside of a transaction; what it found is written only if the task still waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import Connection, select
from sqlalchemy.exc import DBAPIError

from cloner_core.admin.nodes import NodeView
from cloner_core.admin.tasks import TaskState
from cloner_core.errors import ClonerError
from cloner_core.facts import Facts
from cloner_core.messages import Cause, ConfirmWay
from cloner_core.sightings import Aftermath, SshAnswer, clone_verdict
from cloner_server import hostcertificates, sshprobe, vault
from cloner_server.core import Core
from cloner_server.sshprobe import Expected, Found
from cloner_server.state import events, leases, nodes, sightings
from cloner_server.state import tasks as rows
from cloner_server.state.tables import nodes as known_nodes
from cloner_server.state.tables import tasks
from cloner_server.state.tasks import AnyRow
from cloner_server.tasks import endings
from cloner_server.tasks.states import Happening

log = logging.getLogger(__name__)

LOCAL_ANSWER = "boot local"
"""The event of a boot script that leads to the disk."""
NOT_LOOKED_FOR = "clone not looked for"
"""The alarm of a task with a row that cannot be read."""
_FAULT_AGAIN_S = 3600.0
_TURN_S = 1.0
_ASK_EVERY_S = 10.0  # a clone's SSH port, where that is how it confirms
_ASK_LATE_EVERY_S = 300.0  # … after its time was up
_LATE_S = 86_400.0
_AT_ONCE = 32
_ADDRESSES = 8  # of one node

_NOBODY = Expected((), authority="", key_id="")
_UNSEEN = Found(SshAnswer.SILENT)

Look = Callable[[Sequence[str], Expected], Awaitable[Found]]


@dataclass(frozen=True, slots=True)
class _Case:
    """One clone to look for."""

    task_id: int
    attempt_id: str
    is_overdue: bool
    addresses: tuple[str, ...] = ()
    expected: Expected = _NOBODY
    fault: str = ""  # why nobody can look for it; "" nothing


@dataclass(slots=True)
class Confirming:
    """The looking, turn by turn."""

    core: Core
    started_s: Callable[[], float]  # deadlines count from here at the earliest
    look: Look = sshprobe.look
    _asked_s: dict[int, float] = field(default_factory=dict)  # by task; forgotten at a restart, which costs one look

    async def run(self) -> None:
        """Look for ever; a turn that fails is logged and tried again."""
        while True:
            try:
                await self.turn()
            except Exception as error:  # noqa: BLE001 — the database may be full now and not later
                log.error("clones could not be looked after and are later: %s", error)
            await asyncio.sleep(_TURN_S)

    async def turn(self) -> None:
        """Look at every clone whose turn it is, many at once; what makes one fail stops no other."""
        cases = await asyncio.to_thread(self._due)
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(case: _Case) -> None:
            async with gate:
                found = _UNSEEN if case.fault else await self.look(case.addresses, case.expected)
            try:
                await asyncio.to_thread(self._write, case, found)
            except ClonerError as fault:  # changed by somebody else meanwhile: the next turn sees how
                log.warning("task %d: %s", case.task_id, fault)

        ends = await asyncio.gather(*map(one, cases), return_exceptions=True)
        for case, end in zip(cases, ends, strict=True):
            if isinstance(end, Exception):
                log.error("the clone of task %d is looked for later", case.task_id, exc_info=end)

    def _due(self) -> list[_Case]:
        now_s, rules = self.core.clock(), self.core.rules
        cases, asked_s = list[_Case](), dict[int, float]()
        with self.core.database.read() as connection:
            for task in _waiting(connection, now_s):
                asked_s[task.id] = self._asked_s.get(task.id, 0.0)
                is_late = TaskState(task.state) is TaskState.FAILED
                since_s = max(task.changed_s, self.started_s())
                is_overdue = not is_late and since_s <= now_s - rules.confirm_s
                every_s = _ASK_LATE_EVERY_S if is_late else _ASK_EVERY_S
                if not is_overdue and abs(now_s - asked_s[task.id]) < every_s:
                    continue
                asked_s[task.id] = now_s
                attempt = rows.last_attempt(connection, task.id)
                if attempt is not None and (is_overdue or attempt.confirm == ConfirmWay.SSH):
                    cases += self._cases(connection, task, attempt, is_overdue=is_overdue)
        self._asked_s = asked_s  # now that every case is looked at
        return cases

    def _cases(self, connection: Connection, task: AnyRow, attempt: AnyRow, *, is_overdue: bool) -> list[_Case]:
        """Return the clone to look for, if any; one whose rows cannot be read is a case all the same."""
        try:
            if not is_overdue and not _may_come(connection, task):
                return []
            return [self._case(connection, task, attempt, is_overdue=is_overdue)]
        except DBAPIError:
            raise  # of the whole database, and no fault of this row
        except Exception as fault:  # noqa: BLE001 — a damaged row must not keep us from all the other clones
            log.error("the clone of task %d cannot be looked for: %s", task.id, fault)
            return [_Case(task.id, attempt.id, is_overdue, fault=str(fault))]

    def _case(self, connection: Connection, task: AnyRow, attempt: AnyRow, *, is_overdue: bool) -> _Case:
        key = self.core.site.vault_key
        expected = Expected(
            publics=vault.publics(connection, task.node, key),
            authority=hostcertificates.authority_line(key),
            key_id=hostcertificates.key_id(task.node, attempt.id),
        )
        node = nodes.get_node(connection, task.node)
        facts = msgspec.json.decode(attempt.facts, type=Facts)
        return _Case(task.id, attempt.id, is_overdue, addresses_of(connection, node, facts, attempt.address), expected)

    def _write(self, case: _Case, found: Found) -> None:
        if found.answer is not SshAnswer.CLONE and not case.is_overdue and not case.fault:
            return
        act = self.core.act("server")
        with self.core.database.write() as connection:
            if case.fault:
                seldom: dict[str, Any] = {"most": 1, "within_s": _FAULT_AGAIN_S}
                obj = f"task/{case.task_id}"
                events.record_seldom(connection, act, obj, NOT_LOOKED_FOR, **seldom, alarm=True, why=case.fault)
                if not case.is_overdue:
                    return
            task, attempt = rows.get_task(connection, case.task_id), rows.last_attempt(connection, case.task_id)
            if attempt is None or attempt.id != case.attempt_id or not endings.is_unconfirmed(task):
                return  # it called, or somebody decided, while we looked
            if found.answer is SshAnswer.CLONE:
                endings.confirm(connection, act, task, attempt, by=ConfirmWay.SSH, address=found.address)
            elif TaskState(task.state) is TaskState.UNCONFIRMED:
                verdict = clone_verdict(_aftermath(connection, task, attempt, found))
                minutes = self.core.rules.confirm_s / 60
                message = f"{verdict.message} ({_WAITED[attempt.confirm]} within {minutes:.0f} minutes of its receipt)"
                message += f"; nobody could look for it: {case.fault}" if case.fault else ""
                endings.fail_clone(connection, act, task, cause=Cause.UNCONFIRMED, message=message, hint=verdict.hint)


_WAITED = {
    ConfirmWay.PHONE_HOME: "no call",
    ConfirmWay.SSH: "no proof by SSH",
    ConfirmWay.CONSOLE: "no line of its console",
    ConfirmWay.NONE: "no confirmation",
}


def addresses_of(connection: Connection, node: NodeView, facts: Facts, last: str = "") -> tuple[str, ...]:
    """Return where the clone of `node` may be reached: its static addresses, its lease, and what its agent had.

    `last` is where the agent was heard of last.
    """
    network = node.network
    links = (*network.interfaces, *network.bonds, *network.vlans)
    texts = [text for link in links for text in link.addresses]
    texts += [leased for mac in node.macs if (leased := leases.address_of(connection, mac))]
    texts += [last] if last else []
    texts += [text for nic in facts.nics if nic.mac in node.macs for text in nic.addresses]
    found = []
    for text in texts:
        with contextlib.suppress(ValueError):
            address = ipaddress.ip_interface(text).ip
            if not (address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified):
                found.append(str(address))
    return tuple(dict.fromkeys(found))[:_ADDRESSES]


def _waiting(connection: Connection, now_s: float) -> list[AnyRow]:
    """Return the tasks whose clone has not confirmed, and those that failed so lately that it `_may_come` after all."""
    query = select(tasks).where(tasks.c.state == TaskState.UNCONFIRMED.value)
    late = select(tasks).where(
        tasks.c.state == TaskState.FAILED.value,
        tasks.c.changed_s > now_s - _LATE_S,
        tasks.c.node.in_(select(known_nodes.c.name)),
    )
    return [*connection.execute(query), *connection.execute(late)]


def _may_come(connection: Connection, task: AnyRow) -> bool:
    """Tell whether a clone of the task may still confirm, and is the newest of its node."""
    if TaskState(task.state) is TaskState.UNCONFIRMED:
        return True
    return endings.is_unconfirmed(task) and rows.newest_task_id(connection, task.node) == task.id


def _aftermath(connection: Connection, task: AnyRow, attempt: AnyRow, found: Found) -> Aftermath:
    since_s = max(task.changed_s, attempt.ended_s or 0.0)
    receipt = events.last_id_of(connection, f"task/{task.id}", Happening.RECEIPT.value)
    return Aftermath(
        since_s=since_s,
        seen=tuple(sightings.list_sightings(connection, task.node)),
        local_answers=events.count_since(connection, f"node/{task.node}", LOCAL_ANSWER, 0.0, after=receipt),
        ssh=found.answer,
        address=found.address,
    )
