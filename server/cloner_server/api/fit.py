"""Fit reports over the API of admins."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from litestar import post
from litestar.params import JSONBody

from cloner_core.admin.fitting import FitRequest, FitView
from cloner_core.admin.nodes import NodeView
from cloner_core.bootfiles import NotBootableError
from cloner_core.errors import ClonerError, RefusedError
from cloner_core.facts import Facts
from cloner_core.messages import Task
from cloner_core.plan import wanted_of
from cloner_server import fitting, planning
from cloner_server.api.callers import CoreDependency
from cloner_server.catalog import Version
from cloner_server.core import Core
from cloner_server.offering import Offer, kernel_notes, modules_of, offer_for, rules_for
from cloner_server.state import images, nodes
from cloner_server.tasks.foreseen import task_to_come

_OK = 200
_SHOWN_BYTES = 16 << 20  # thousands of names


@dataclass(frozen=True, slots=True)
class _Asked:
    node: NodeView
    known: tuple[Facts, float] | None
    task: Task | RefusedError
    offer: Offer


@post("/fit", request_max_body_size=_SHOWN_BYTES, status_code=_OK)
async def fit(core: CoreDependency, data: JSONBody[FitRequest]) -> list[FitView]:
    """Say what a deploy would make of each node, from inventories alone; changes nothing and asks no machine."""
    views = []
    for asked in await asyncio.to_thread(_look, core, data):
        if isinstance(asked.task, RefusedError):
            views.append(fitting.unplannable(asked.node, data.image, asked.task))
            continue
        version = await asyncio.to_thread(core.catalog.find, asked.task.version)
        fault = await _boot_fault(core, version, asked.known[0], asked.task) if asked.known else None
        views.append(await asyncio.to_thread(_fit, core, asked, version, fault))
    return views


def fit_handlers() -> list[Any]:
    """Return the handlers of fit reports."""
    return [fit]


def _look(core: Core, data: FitRequest) -> list[_Asked]:
    with core.database.read() as connection:
        row = images.get_version(connection, data.image, data.version)
        image, found = f"{row.image}:{row.number}", []
        for node in nodes.get_nodes(connection, list(dict.fromkeys(data.nodes))):
            task: Task | RefusedError
            try:
                task = task_to_come(core, connection, node.name, image, data.layout)
            except RefusedError as fault:
                task = fault
            offer = offer_for(core, connection, node.name, row.image)
            found.append(_Asked(node, nodes.last_facts(connection, node.name), task, offer))
    return found


def _fit(core: Core, asked: _Asked, version: Version, boot_fault: ClonerError | None) -> FitView:
    assert isinstance(asked.task, Task)
    drivers = core.drivers.find(version) if asked.known else None
    return fitting.fit(
        asked.node,
        asked.known,
        asked.task,
        version,
        rules=rules_for(core, asked.offer),
        now_s=core.clock(),
        boot_fault=boot_fault,
        drivers=drivers,
        installer=modules_of(core, asked.offer) if asked.known else frozenset(),
        kernel_notes=kernel_notes(asked.offer, drivers),
    )


async def _boot_fault(core: Core, version: Version, facts: Facts, told: Task) -> ClonerError | None:
    try:
        for action in await asyncio.to_thread(planning.boot_actions, facts, told, version):
            await core.verifier.require_bootable(version, action, facts.arch)
        await core.verifier.require_unlockable(version, wanted_of(told.layout))
    except NotBootableError as fault:
        return fault
    return None
