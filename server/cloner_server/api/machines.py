"""Machines that are no nodes, over the API of admins."""

from __future__ import annotations

from typing import Any

from litestar import delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody

from cloner_core.admin.nodes import MachineRequest, MachineView
from cloner_core.errors import InvalidError, NotFoundError
from cloner_core.facts import Facts, normalize_mac
from cloner_server.api.callers import CoreDependency, who
from cloner_server.api.faults import AnyRequest
from cloner_server.state import machines
from cloner_server.tasks import bootclaims, discovery

_OK = 200


@get("/machines", sync_to_thread=True)
def machine_list(core: CoreDependency) -> list[MachineView]:
    """List every machine whose inventory was allowed and that is no node yet."""
    with core.database.read() as connection:
        return machines.list_machines(connection)


@post("/machines", sync_to_thread=True, status_code=_OK)
def machine_set(core: CoreDependency, request: AnyRequest, data: JSONBody[MachineRequest]) -> list[MachineView]:
    """Allow the inventory of machines, or take that back."""
    macs = list(dict.fromkeys(_mac(mac) for mac in data.macs))
    with core.database.trial(data.dry_run) as connection:
        discovery.set_machines(connection, who(core, request), macs, data.value, core.rules)
        return [view for view in machines.list_machines(connection) if view.mac in macs]


@get("/machines/{mac:str}/facts", sync_to_thread=True)
def machine_facts(core: CoreDependency, mac: FromPath[str]) -> Facts:
    """Show the inventory of a machine."""
    with core.database.read() as connection:
        known = machines.last_facts(connection, _mac(mac))
    if known is None:
        raise NotFoundError(f"{mac} has told nothing yet", hint="its inventory is taken when it boots over the network")
    return known[0]


@delete("/machines/{mac:str}", sync_to_thread=True, status_code=_OK)
def machine_forget(
    core: CoreDependency, request: AnyRequest, mac: FromPath[str], dry_run: FromQuery[bool] = False
) -> list[MachineView]:
    """Remove a machine and its inventory; returns those that are left."""
    with core.database.trial(dry_run) as connection:
        bootclaims.forget(connection, f"machine/{_mac(mac)}")
        machines.forget(connection, who(core, request), _mac(mac))
        return machines.list_machines(connection)


def machine_handlers() -> list[Any]:
    """Return the handlers of machines."""
    return [machine_list, machine_set, machine_facts, machine_forget]


def _mac(text: str) -> str:
    try:
        return normalize_mac(text)
    except ValueError as fault:
        raise InvalidError(str(fault)) from fault
