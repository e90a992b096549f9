"""What a plan does for a machine that BIOS starts: where GRUB goes on its disks, and the steps around it."""

from __future__ import annotations

from collections.abc import Iterator

from cloner_core.biosboot import SECTOR_BYTES
from cloner_core.describing import describe_disk
from cloner_core.facts import Facts, Firmware
from cloner_core.layout import Layout
from cloner_core.messages import Cause, Stage
from cloner_core.plan.values import Plan, PlannedDisk
from cloner_core.refusals import PlanError
from cloner_core.steps import BiosBoot, BiosPlace, BiosStub, Step

LEAST_SECTORS = 512
"""Of room for a core image: it has 160 KiB, and GRUB grows."""


def check_firmware(facts: Facts, layout: Layout) -> None:
    """Raise PlanError (firmware) when the layout is not for what started the machine."""
    roles = {one.role for disk in layout.disks for one in disk.partitions}
    is_for_uefi = "esp" in roles
    is_for_bios = "bios-boot" in roles or any(disk.table == "mbr" for disk in layout.disks)
    if facts.firmware is Firmware.UEFI and not is_for_uefi:
        raise PlanError(
            Cause.FIRMWARE,
            "the machine was started by UEFI and the layout has no EFI partition",
            hint="add a partition of role 'esp' to the layout, or switch the firmware to BIOS (CSM)",
        )
    if facts.firmware is Firmware.BIOS and not is_for_bios:
        raise PlanError(
            Cause.FIRMWARE,
            "the machine was started by BIOS and the layout boots from an EFI partition",
            hint="switch the firmware to UEFI mode and netboot again, or give the layout a partition of role"
            " 'bios-boot' (1MiB)",
        )


def stub_steps(planned: PlannedDisk) -> Iterator[Step]:
    """Give what keeps BIOS from hanging in the new table's empty code, right after the table was written."""
    if planned.table != "none":
        disk = planned.disk.path
        yield Step(Stage.PARTITION, f"have BIOS pass over {disk} until the commit", BiosStub(disk))


def bios_boot_step(plan: Plan) -> Step:
    """Return the commit of a machine that BIOS starts; raises PlanError when no disk has room for a core image."""
    places = tuple(_places(plan))
    if not places:
        raise PlanError(
            Cause.LAYOUT,
            "no disk that /boot lies on has room for GRUB: neither a 'bios-boot' partition nor an mbr",
            hint="give each of them a partition of role 'bios-boot' (1MiB)",
        )
    disks = ", ".join(place.disk for place in places)
    return Step(Stage.COMMIT, f"make {disks} bootable", BiosBoot(places))


def _places(plan: Plan) -> Iterator[BiosPlace]:
    below = _below(plan, plan.boot.device)
    for planned in plan.disks:
        own = next((one for one in planned.partitions if one.role == "bios-boot"), None)
        if own is not None:
            place = BiosPlace(planned.disk.path, own.start_sectors, own.size_sectors)
        elif planned.table == "mbr" and below & {one.device for one in planned.partitions}:
            first = min(one.start_sectors for one in planned.partitions)
            place = BiosPlace(planned.disk.path, 1, first - 1)
        else:
            continue
        _check(planned, place)
        yield place


def _check(planned: PlannedDisk, place: BiosPlace) -> None:
    if planned.disk.sector_bytes != SECTOR_BYTES:
        raise PlanError(
            Cause.FIRMWARE,
            f"BIOS cannot boot from {describe_disk(planned.disk)}: its sectors have {planned.disk.sector_bytes} bytes",
            hint="switch the firmware to UEFI mode, or boot from another disk",
        )
    if place.sectors < LEAST_SECTORS:
        raise PlanError(
            Cause.LAYOUT,
            f"{describe_disk(planned.disk)} has room for {place.sectors} sectors of GRUB; want {LEAST_SECTORS}",
            hint="make the bios-boot partition 1MiB, or let the first partition begin at 1MiB",
        )


def _below(plan: Plan, device: str) -> set[str]:
    """Return the paths of everything that `device` lies on, and its own."""
    found = {device}
    for array in plan.arrays:
        if array.device == device:
            found |= {path for member in array.members for path in _below(plan, member)}
    for crypt in plan.crypts:
        if crypt.device == device:
            found |= _below(plan, crypt.backing)
    for group in plan.groups:
        if device in {group.device(volume) for volume in group.volumes}:
            found |= {path for physical in group.physical for path in _below(plan, physical)}
    return found
