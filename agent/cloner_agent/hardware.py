"""The machine under an attempt, as seams: programs, disks, firmware, clock and how long it waits.

`Hardware()` is the machine the agent runs on; a test gives one that is simulated. Must not decide anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from cloner_agent.board import Board
from cloner_agent.bundle import kernel_log_tail
from cloner_agent.client import PATIENCE_S
from cloner_agent.clock import set_clock
from cloner_agent.efivars import EfiVars
from cloner_agent.holders import stop_holders
from cloner_agent.host import Runner, run
from cloner_agent.machine import Machine
from cloner_agent.partitions import WaitForDevice, wait_for_device
from cloner_agent.probe import EFIVARS, probe
from cloner_agent.restore.workers import usual_workers
from cloner_agent.screens import Screens
from cloner_core.facts import Facts
from cloner_core.steps import TARGET


class Probe(Protocol):
    """How the machine is looked at."""

    def __call__(self, run: Runner, *, boot_mac: str = "") -> Facts:
        """See `cloner_agent.probe.probe`."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """What an attempt finds under itself."""

    run: Runner = run
    probe: Probe = probe
    machine: Machine = field(default_factory=Machine)
    efivars: EfiVars = field(default_factory=lambda: EfiVars(EFIVARS))
    target: str = TARGET
    workers: int = field(default_factory=usual_workers)
    stop_holders: Callable[[str, Runner], None] = stop_holders
    wait_for_device: WaitForDevice = wait_for_device
    set_clock: Callable[[float], bool] = set_clock
    screens: Callable[[Board], Screens] = Screens
    kernel_log: Callable[[], str] = kernel_log_tail
    patience_s: float = PATIENCE_S  # of a request, while server or network are away
    sleep: Callable[[float], None] = time.sleep  # after a failure: shown, then restart or hold
