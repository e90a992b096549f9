"""The steps of each node's boots as the network saw them last; told by the wire, so they prove nothing."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select

from cloner_core.sightings import BootStep, Sighting
from cloner_server.state.database import Act
from cloner_server.state.tables import sightings


def record(connection: Connection, act: Act, node: str, step: BootStep, address: str = "") -> None:
    """Keep that `node` was seen at `step` now, in place of the former time."""
    same = sightings.c.node == node, sightings.c.step == step.value
    connection.execute(delete(sightings).where(*same))
    values = {"node": node, "step": step.value, "time_s": act.now_s, "address": address}
    connection.execute(insert(sightings).values(values))


def list_sightings(connection: Connection, node: str) -> list[Sighting]:
    """Return the last sighting of each step, the oldest first."""
    query = select(sightings).where(sightings.c.node == node).order_by(sightings.c.time_s)
    return [Sighting(BootStep(row.step), row.time_s, row.address) for row in connection.execute(query)]
