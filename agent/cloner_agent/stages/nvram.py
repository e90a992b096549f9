"""The firmware's boot entries: what the plan of `cloner_core.nvram` says is written, then read back.

Must not decide an order or which entries are stale.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from cloner_agent.attempt import Attempt
from cloner_agent.bootentries import apply_plan, write_all
from cloner_agent.failures import StageError
from cloner_core.efi import HardDrive, build_order
from cloner_core.messages import Cause
from cloner_core.nvram import (
    NvramPlan,
    Write,
    describe,
    describe_order,
    network_entry,
    network_first,
    nvram_faults,
    nvram_plan,
    read_nvram,
)
from cloner_core.steps import Nvram

log = logging.getLogger(__name__)


def require_variables(attempt: Attempt) -> None:
    """Raise StageError (NVRAM) when the plan has an entry to write and the firmware shows no variables."""
    is_wanted = any(isinstance(step.action, Nvram) for step in attempt.plan.steps)
    if is_wanted and not attempt.tools.efivars.is_there:
        raise StageError(Cause.NVRAM, "the firmware shows no variables, so no boot entry can be written")


def put_network_first(attempt: Attempt) -> None:
    """Have the firmware ask the network before any disk, from before the disk can boot until `write`.

    Firmware that was told once to boot from the network (F12), or found nothing else on a blank disk, has the disk
    first: a power cut before the receipt would start a clone nobody has heard of. Trouble is worth a note: the disk has
    nothing else that boots, so the deploy goes on.
    """
    variables = attempt.tools.efivars
    before = read_nvram(variables.all())
    attempt.record.nvram_before = describe(before)
    order = network_first(before, is_netbooted=bool(attempt.facts.boot_mac))
    if order is None:
        return
    why = "its store is full"
    try:
        if write_all(variables, (Write("BootOrder", build_order(order)),)):
            after = read_nvram(variables.all()).order
            if after == order:
                return
            why = f"BootOrder is {describe_order(after)}, want {describe_order(order)}"
    except OSError as error:
        why = str(error.strerror)
    attempt.tools.reporter.note(
        f"the firmware does not ask the network first ({why}): if power fails before the receipt, the disk boots and"
        " the task stays lost"
    )


def write(attempt: Attempt, action: Nvram) -> None:
    """Write entry and order for the loader that was placed, and read them back.

    A variable store that stays full is worth a note, because the fallback path boots too; anything else that differs
    from the plan raises StageError (NVRAM).
    """
    require_variables(attempt)
    variables = attempt.tools.efivars
    before = read_nvram(variables.all())
    attempt.record.nvram_before = attempt.record.nvram_before or describe(before)
    is_netbooted = bool(attempt.facts.boot_mac)
    if action.boot_order == "network-first" and network_entry(before, is_netbooted=is_netbooted) is None:
        attempt.tools.reporter.note(
            "the firmware has no boot entry for the network: the disk comes first, and the server cannot call the node"
            " back before someone chooses the network in its setup"
        )
    drives = _drives(action)
    try:
        plan = _try(attempt, action, drives)
        if plan is None and len(drives) > 1:
            attempt.tools.reporter.note(
                "NVRAM has no room for an entry of each disk: the others boot by their fallback"
            )
            plan = _try(attempt, action, drives[:1])
    except OSError as error:
        raise StageError(Cause.NVRAM, f"the firmware refused {error.filename}: {error.strerror}") from error
    after = read_nvram(variables.all())
    attempt.record.nvram_after = describe(after)
    if plan is None:
        attempt.tools.reporter.note(
            "NVRAM is full even without crash dumps: the node boots by \\EFI\\BOOT\\BOOTX64.EFI"
        )
        return
    if faults := nvram_faults(after, plan):
        raise StageError(Cause.NVRAM, f"the firmware did not keep what was written: {'; '.join(faults)}")
    attempt.record.boot_number = plan.number
    log.info("%s", attempt.record.nvram_after[0])


def _drives(action: Nvram) -> tuple[HardDrive, ...]:
    first = HardDrive(action.partition, action.start_sectors, action.size_sectors, action.part_uuid)
    copies = (HardDrive(one.partition, one.start_sectors, one.size_sectors, one.part_uuid) for one in action.copies)
    return (first, *copies)


def _try(attempt: Attempt, action: Nvram, drives: Sequence[HardDrive]) -> NvramPlan | None:
    """Have the firmware boot the first of `drives`, else the next; None when it has no room for that."""
    variables = attempt.tools.efivars
    destroyed, live = _partitions(attempt)
    plan = nvram_plan(
        read_nvram(variables.all()),
        drives,
        attempt.record.loader,
        description=action.description,
        policy=action.boot_order,
        destroyed=destroyed,
        live=live,
        is_netbooted=bool(attempt.facts.boot_mac),
    )
    return plan if apply_plan(variables, plan) else None


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
