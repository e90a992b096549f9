"""Machines that are no nodes and whose inventory an admin has allowed, by MAC.

A machine that becomes a node takes its inventory along and is gone from here.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from cloner_core.admin.nodes import MachineView
from cloner_core.errors import NotFoundError
from cloner_core.facts import Facts
from cloner_server.state import events
from cloner_server.state.database import Act
from cloner_server.state.tables import machines

_HINT = "cloner machine list shows all"


def set_netboot(connection: Connection, act: Act, mac: str, value: str, *, why: str) -> None:
    """Say what the machine gets at its next network boot; one that is not known yet is added."""
    before = connection.execute(select(machines.c.netboot).where(machines.c.mac == mac)).scalar_one_or_none()
    if before == value:
        return
    if before is None:
        connection.execute(insert(machines).values(mac=mac, netboot=value, allowed_s=act.now_s))
    else:
        connection.execute(update(machines).where(machines.c.mac == mac).values(netboot=value))
    events.record(connection, act, f"machine/{mac}", "netboot", value=value, before=before or "", why=why)


def netboot_of(connection: Connection, mac: str) -> str:
    """Return what the machine gets; "" when nobody has said anything about it."""
    return str(connection.execute(select(machines.c.netboot).where(machines.c.mac == mac)).scalar_one_or_none() or "")


def remember_facts(connection: Connection, act: Act, mac: str, facts: Facts) -> None:
    """Keep what the machine told."""
    text = msgspec.json.encode(facts).decode()
    connection.execute(update(machines).where(machines.c.mac == mac).values(facts=text, facts_s=act.now_s))


def last_facts(connection: Connection, mac: str) -> tuple[Facts, float] | None:
    """Return the inventory and its time, None when it told none; raises NotFoundError."""
    row = connection.execute(select(machines).where(machines.c.mac == mac)).one_or_none()
    if row is None:
        raise NotFoundError(f"no such machine: {mac}", hint=_HINT)
    return None if row.facts is None else (msgspec.json.decode(row.facts, type=Facts), row.facts_s)


def list_machines(connection: Connection) -> list[MachineView]:
    """Return every machine, by MAC."""
    views = []
    for row in connection.execute(select(machines).order_by(machines.c.mac)):
        view = MachineView(mac=row.mac, netboot=row.netboot, allowed_s=row.allowed_s, seen_s=row.facts_s)
        if row.facts is not None:
            facts = msgspec.json.decode(row.facts, type=Facts)
            said = {"vendor": facts.dmi.vendor, "product": facts.dmi.product, "serial": facts.dmi.serial}
            view = msgspec.structs.replace(view, memory_bytes=facts.memory_bytes, disks=len(facts.disks), **said)
        views.append(view)
    return views


def forget(connection: Connection, act: Act, mac: str) -> None:
    """Remove a machine and its inventory; raises NotFoundError."""
    if not connection.execute(delete(machines).where(machines.c.mac == mac)).rowcount:
        raise NotFoundError(f"no such machine: {mac}", hint=_HINT)
    events.record(connection, act, f"machine/{mac}", "removed")


def take_over(connection: Connection, act: Act, macs: Sequence[str], node: str) -> tuple[str, float] | None:
    """Remove the machines that `node` now is; return its newest inventory (as JSON) and the time of it, None none."""
    found = connection.execute(select(machines).where(machines.c.mac.in_(macs))).all()
    for row in found:
        connection.execute(delete(machines).where(machines.c.mac == row.mac))
        events.record(connection, act, f"machine/{row.mac}", "became node", node=node)
    told = [(row.facts_s, row.facts) for row in found if row.facts is not None]
    if not told:
        return None
    time_s, text = max(told)
    return text, time_s
