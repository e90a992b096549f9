"""Choosing the disks of a node for a layout: exactly one for each selector, or a refusal that says why.

Disk names change from boot to boot, so nothing here looks at them; they only appear in messages.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from cloner_core.describing import describe_disk
from cloner_core.facts import Disk
from cloner_core.layout import Layout, Selector
from cloner_core.messages import Cause
from cloner_core.refusals import PlanError
from cloner_core.sizes import format_bytes


def select_disks(layout: Layout, disks: Sequence[Disk], protected_serials: Collection[str] = ()) -> dict[str, Disk]:
    """Return the disk for each disk id of `layout`; all distinct.

    Never chooses a disk that is empty, read-only, removable, on USB, in use, or protected.
    Raises PlanError (no-disk, ambiguous-disk) that says for each disk why it was or was not chosen.
    """
    chosen: dict[str, Disk] = {}
    for wanted in layout.disks:
        reasons = {disk.path: why_not(wanted.select, disk, protected_serials) for disk in disks}
        matching = [disk for disk in disks if not reasons[disk.path]]
        if len(matching) != 1:
            raise _refusal(wanted.id, wanted.select, disks, reasons, len(matching))
        disk = matching[0]
        for other, taken in chosen.items():
            if taken.path == disk.path:
                raise PlanError(
                    Cause.AMBIGUOUS_DISK,
                    f"the selectors of '{other}' and '{wanted.id}' both choose {describe_disk(disk)}",
                    hint="make the selectors of the layout tell the disks apart",
                )
        chosen[wanted.id] = disk
    return chosen


def why_not(select: Selector, disk: Disk, protected_serials: Collection[str]) -> str:
    """Return why `disk` may not be chosen, or "" when it may."""
    barred = [
        (disk.size_bytes <= 0, "has no medium (size 0)"),
        (disk.is_read_only, "is read-only"),
        (disk.is_removable, "is removable"),
        (disk.bus == "usb", "is on USB"),
        (disk.is_mounted, "is in use (mounted or swapped on, itself or what is built on it)"),
        (disk.serial != "" and disk.serial in protected_serials, "is protected by its serial"),
    ]
    unlike = [
        (bool(select.serial) and not fnmatchcase(disk.serial, select.serial), f"serial is not like '{select.serial}'"),
        (bool(select.model) and not fnmatchcase(disk.model, select.model), f"model is not like '{select.model}'"),
        (
            disk.size_bytes < select.size_min_bytes,
            f"is smaller than {format_bytes(select.size_min_bytes)}",
        ),
        (
            bool(select.size_max_bytes) and disk.size_bytes > select.size_max_bytes,
            f"is larger than {format_bytes(select.size_max_bytes)}",
        ),
    ]
    return "; ".join(reason for is_so, reason in (*barred, *unlike) if is_so)


def _refusal(disk_id: str, select: Selector, disks: Sequence[Disk], reasons: dict[str, str], matches: int) -> PlanError:
    seen = [f"{describe_disk(disk)}: {reasons[disk.path] or 'matches'}" for disk in disks] or ["there is no disk"]
    lines = "\n  - ".join((f"layout disk '{disk_id}' wants one disk with {describe_selector(select)}", *seen))
    if matches:
        return PlanError(
            Cause.AMBIGUOUS_DISK,
            f"{matches} disks match where exactly one must; {lines}",
            hint="narrow the selector of the layout, or protect a disk by its serial",
        )
    return PlanError(
        Cause.NO_DISK,
        f"no disk matches; {lines}",
        hint="compare the selector of the layout with the disks listed; attach or release the disk meant",
    )


def describe_selector(select: Selector) -> str:
    """Return `select` in words."""
    parts = [
        f"serial '{select.serial}'" if select.serial else "",
        f"model '{select.model}'" if select.model else "",
        f"at least {format_bytes(select.size_min_bytes)}" if select.size_min_bytes else "",
        f"at most {format_bytes(select.size_max_bytes)}" if select.size_max_bytes else "",
    ]
    return ", ".join(part for part in parts if part) or "any properties"
