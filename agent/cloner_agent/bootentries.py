"""Writes what a plan of `cloner_core.nvram` says into the firmware.

Must not decide an order or which entries are stale.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from cloner_agent.efivars import EfiVars, NvramFullError
from cloner_core.nvram import NvramPlan, Write

log = logging.getLogger(__name__)


def apply_plan(variables: EfiVars, plan: NvramPlan) -> bool:
    """Delete, then write entries before order, so that a power cut leaves an order that names nothing missing.

    False when the firmware has no room.
    """
    for name in plan.delete:
        variables.delete(name)
    return write_all(variables, plan.writes)


def write_all(variables: EfiVars, writes: Sequence[Write]) -> bool:
    """Write in this order, without crash dumps when there is no room for both; False when there is none at all."""
    for is_last in (False, True):
        try:
            for one in writes:
                variables.write(one.name, one.value)
        except NvramFullError as error:
            if is_last or not variables.delete_crash_dumps():
                log.warning("%s", error)
                return False
            log.warning("NVRAM was full: crash dumps of an earlier system removed")
        else:
            return True
    return False
