"""A machine for each of the staged failures, all cloned at once before one server, and what came of each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentbench import faults, mishaps
from agentbench.ground import Ground, ground
from agentbench.row import Row
from agentbench.yard import Running
from torture import clear_locks


@dataclass(frozen=True)
class Outcome:
    """What became of a row."""

    row: Row
    one: Running
    former: str  # digest of its disk before
    task: dict[str, Any]
    events: tuple[str, ...]
    notes: tuple[str, ...]  # of the receipt


@contextmanager
def staged(
    directory: Path, rows: dict[str, Row], deadline_s: float = 300.0
) -> Iterator[tuple[Ground, dict[str, Outcome]]]:
    """Clone a machine for each row, all at once, and give what became of each."""
    images = {"flipped": faults.flip, "missing": faults.lose_pack, "kernelless": None}
    wanted = {name: spoil for name, spoil in images.items() if any(name in row.node.values() for row in rows.values())}
    with ground(directory, images=wanted, lost_s=mishaps.LOST_S) as made:
        machines: dict[str, Running] = {}
        formers = {}
        for name, row in rows.items():
            one = machines[name] = made.add(has_wire=True, node=row.node, **row.machine)
            one.machine.spoil = row.spoil
            row.stop(made, one)
            formers[name] = one.machine.disk.digest()
        try:
            made.deploy()
            made.yard.run(deadline_s=deadline_s)
            made.settle()
            yield made, {name: _outcome(made, rows[name], one, formers[name]) for name, one in machines.items()}
        finally:
            for etc in (directory / "bulk").glob("*/*/etc"):
                clear_locks(etc)


def _outcome(ground: Ground, row: Row, one: Running, former: str) -> Outcome:
    task = ground.task(one)
    told = ground.events(subject=f"task/{task['id']}")
    notes: tuple[str, ...] = ()
    if task["state"] in ("unconfirmed", "done"):
        notes = tuple(ground.served.admin("GET", f"/receipts/{one.machine.name}")["receipt"]["body"].get("notes", ()))
    return Outcome(row, one, former, task, tuple(event["what"] for event in told), notes)
