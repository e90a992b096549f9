"""A staged failure: what is wrong with one simulated machine, when that happens, and what must come of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agentbench.ground import Ground
from agentbench.simulated import SimulatedMachine, Spoil
from agentbench.wire import Mode
from agentbench.yard import End, Running
from cloner_agent.efivars import EfiVars
from cloner_core.mending import remedy
from cloner_core.messages import Cause, Stage

Stop = Callable[[Ground, Running], None]
"""Prepares a machine, before it is switched on, for what is to happen to it."""


@dataclass(frozen=True)
class Row:
    """One failure and what is expected of it; stage, cause and hint are the failure's, None without one."""

    what: str
    state: str
    stage: Stage | None = None
    cause: Cause | None = None
    hint: str = ""  # a part of it; "" the rule book's for cause and stage
    end: End = End.CLONE
    alarm: str = ""  # an event that must have been raised
    note: str = ""  # in the receipt
    said: str = ""  # on the console
    attempts: int = 1
    stop: Stop = lambda ground, one: None
    spoil: Spoil | None = None
    machine: dict[str, Any] = field(default_factory=dict)
    node: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The id of the case."""
        return re.sub(r"[^a-z0-9]+", "-", self.what.lower()).strip("-")

    @property
    def expected_hint(self) -> str:
        """What the hint must hold."""
        if self.hint or self.cause is None:
            return self.hint
        return remedy(self.cause, self.stage).do


def cable(mode: Mode, at: Stage, *, for_s: float = 0.0) -> Stop:
    """Make the cable do `mode` from a stage on, until the machine holds or restarts, or for some seconds."""

    def stop(ground: Ground, one: Running) -> None:
        def mend(*_: object) -> None:
            assert one.wire is not None
            one.wire.set(Mode.OPEN)

        def act(one: Running) -> None:
            assert one.wire is not None
            one.wire.set(mode)
            if for_s:
                ground.yard.later(for_s, mend)

        one.at[at] = act
        if not for_s:
            one.on_end = mend

    return stop


def at_stage(stage: Stage, act: Callable[[Ground, Running], float | None]) -> Stop:
    """Do something in the yard, while the machine stands still at the entry of a stage."""

    def stop(ground: Ground, one: Running) -> None:
        one.at[stage] = lambda one: act(ground, one)

    return stop


def within_stage(stage: Stage, act: Callable[[SimulatedMachine], None]) -> Stop:
    """Do something in the process of the agent, at the entry of a stage."""

    def stop(ground: Ground, one: Running) -> None:
        one.within[stage] = lambda: act(one.machine)

    return stop


def on_machine(change: Callable[[SimulatedMachine], object]) -> Stop:
    """Change the machine before it is switched on."""

    def stop(ground: Ground, one: Running) -> None:
        change(one.machine)

    return stop


def variables(kind: type[EfiVars]) -> dict[str, Any]:
    """Return the field of a machine whose firmware keeps its variables so."""
    return {"variables": kind}
