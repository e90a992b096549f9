"""The firmware's boot entries: what the plan of `cloner_core.nvram` says is written, then read back.

Must not decide an order or which entries are stale.
"""

from __future__ import annotations

import logging

from cloner_agent.attempt import Attempt
from cloner_agent.efivars import EfiVars, NvramFullError
from cloner_agent.failures import StageError
from cloner_core.efi import HardDrive
from cloner_core.messages import Cause
from cloner_core.nvram import NvramPlan, describe, network_entry, nvram_faults, nvram_plan, read_nvram
from cloner_core.steps import Nvram

log = logging.getLogger(__name__)


def write(attempt: Attempt, action: Nvram) -> None:
    """Write entry and order for the loader that was placed, and read them back.

    A variable store that stays full is worth a note, because the fallback path boots too; anything else that differs
    from the plan raises StageError (NVRAM).
    """
    variables = attempt.tools.efivars
    if not variables.is_there:
        raise StageError(Cause.NVRAM, "the firmware shows no variables, so no boot entry can be written")
    before = read_nvram(variables.all())
    attempt.record.nvram_before = describe(before)
    destroyed, live = _partitions(attempt)
    is_netbooted = bool(attempt.facts.boot_mac)
    plan = nvram_plan(
        before,
        HardDrive(action.partition, action.start_sectors, action.size_sectors, action.part_uuid),
        attempt.record.loader,
        description=action.description,
        policy=action.boot_order,
        destroyed=destroyed,
        live=live,
        is_netbooted=is_netbooted,
    )
    if action.boot_order == "network-first" and network_entry(before, is_netbooted=is_netbooted) is None:
        attempt.tools.reporter.note(
            "the firmware has no boot entry for the network: the disk comes first, and the server cannot call the node"
            " back before someone chooses the network in its setup"
        )
    try:
        is_written = _write(variables, plan)
    except OSError as error:
        raise StageError(Cause.NVRAM, f"the firmware refused {error.filename}: {error.strerror}") from error
    after = read_nvram(variables.all())
    attempt.record.nvram_after = describe(after)
    if not is_written:
        attempt.tools.reporter.note(
            "NVRAM is full even without crash dumps: the node boots by \\EFI\\BOOT\\BOOTX64.EFI"
        )
        return
    if faults := nvram_faults(after, plan):
        raise StageError(Cause.NVRAM, f"the firmware did not keep what was written: {'; '.join(faults)}")
    attempt.record.boot_number = plan.number
    log.info("%s", attempt.record.nvram_after[0])


def _write(variables: EfiVars, plan: NvramPlan) -> bool:
    """Delete, then write entry before order, so that a power cut leaves an order that names nothing missing."""
    for name in plan.delete:
        variables.delete(name)
    for is_last in (False, True):
        try:
            for one in plan.writes:
                variables.write(one.name, one.value)
        except NvramFullError as error:
            if is_last or not variables.delete_crash_dumps():
                log.warning("%s", error)
                return False
            log.warning("NVRAM was full: crash dumps of an earlier system removed")
        else:
            return True
    return False


def _partitions(attempt: Attempt) -> tuple[set[str], set[str]]:
    """Return the GUIDs of partitions that this deploy overwrote, and of those that exist now."""
    chosen = {planned.disk.path for planned in attempt.plan.disks}
    new = {partition.part_uuid for partition in attempt.plan.partitions}
    old, others = set(), set()
    for disk in attempt.facts.disks:
        guids = {signature.part_uuid for signature in disk.signatures if signature.part_uuid}
        if disk.path in chosen:
            old |= guids
        else:
            others |= guids
    return old - new, others | new
