"""Choosing the disks of a node for a layout: exactly one for each selector, or a refusal that says why.

Disk names change from boot to boot, so nothing here looks at them; they only appear in messages.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from cloner_core.describing import describe_disk
from cloner_core.facts import Disk
from cloner_core.layout import Layout, Match, Pick, Selector
from cloner_core.messages import Cause
from cloner_core.refusals import PlanError
from cloner_core.sizes import format_bytes


def select_disks(layout: Layout, disks: Sequence[Disk], protected_serials: Collection[str] = ()) -> dict[str, Disk]:
    """Return the disk for each disk id of `layout`; all distinct.

    Never chooses a disk that is empty, read-only, removable, on USB, in use, protected, or untouched by the layout.
    Raises PlanError (no-disk, ambiguous-disk) that says for each disk why it was or was not chosen.
    """
    chosen: dict[str, Disk] = {}
    untouched = {
        disk.path: select
        for select in layout.untouched
        for disk in disks
        if not any(_unlikeness(select, disk)) and disk.size_bytes
    }
    for wanted in layout.disks:
        reasons = {disk.path: why_not(wanted.select, disk, protected_serials) for disk in disks}
        for path, select in untouched.items():
            told = f"is not to be touched: {describe_selector(select)}"
            reasons[path] = "; ".join(reason for reason in (told, reasons[path]) if reason)
        matching = [disk for disk in disks if not reasons[disk.path]]
        disk = _picked(wanted.select.pick, matching) if wanted.select.pick else None
        if disk is None:
            if len(matching) != 1 or wanted.select.pick:
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


def _picked(pick: Pick, matching: Sequence[Disk]) -> Disk | None:
    """Return the disk that `pick` means; None when there are more or fewer than it counts on, or two are alike."""
    keys = [_order(pick, disk) for disk in matching]
    if len(matching) != pick.of or len(set(keys)) != len(keys) or any(key in ((), 0) for key in keys):
        return None
    return sorted(matching, key=lambda disk: _order(pick, disk))[pick.nth - 1]


def _order(pick: Pick, disk: Disk) -> tuple[object, ...] | int:
    """Return what disks are sorted by: numbers in a text by value, so that port 10 comes behind port 9."""
    if pick.by == "size":
        return disk.size_bytes
    text = {"path": disk.by_path, "bay": disk.bay, "serial": disk.serial, "wwn": disk.wwn}[pick.by]
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.findall(r"\d+|\D+", text))


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
    return "; ".join([*(reason for is_so, reason in barred if is_so), *_unlikeness(select, disk)])


def _unlikeness(select: Selector, disk: Disk) -> list[str]:
    """Return what of `disk` is not as `select` wants it."""
    texts = {
        "serial": (disk.serial,),
        "model": (disk.model,),
        "wwn": (disk.wwn,),
        "bus": (disk.bus,),
        "path": (disk.by_path,),
        "controller": (disk.controller, disk.controller_id),
        "bay": (disk.bay,),
    }
    reasons = []
    for name, values in texts.items():
        wanted = getattr(select, name)
        if wanted and not _is_like(wanted, values):
            reasons.append(f"{name} is not like {describe_pattern(wanted)}")
    if disk.size_bytes < select.size_min_bytes:
        reasons.append(f"is smaller than {format_bytes(select.size_min_bytes)}")
    if select.size_max_bytes and disk.size_bytes > select.size_max_bytes:
        reasons.append(f"is larger than {format_bytes(select.size_max_bytes)}")
    if select.rotational is not None and disk.is_rotational != select.rotational:
        reasons.append("rotates" if disk.is_rotational else "does not rotate")
    if select.sector_bytes and disk.sector_bytes != select.sector_bytes:
        reasons.append(f"has sectors of {disk.sector_bytes} bytes")
    return reasons


def _is_like(wanted: str | Match, values: Sequence[str]) -> bool:
    match = Match(any=(wanted,)) if isinstance(wanted, str) else wanted

    def fits(pattern: str) -> bool:
        return any(fnmatchcase(value, pattern) for value in values)

    return (not match.any or any(map(fits, match.any))) and not any(map(fits, match.none))


def _refusal(disk_id: str, select: Selector, disks: Sequence[Disk], reasons: dict[str, str], matches: int) -> PlanError:
    seen = [f"{describe_disk(disk)}: {reasons[disk.path] or 'matches'}" for disk in disks] or ["there is no disk"]
    lines = "\n  - ".join((f"layout disk '{disk_id}' wants one disk with {describe_selector(select)}", *seen))
    if matches and select.pick:
        return PlanError(
            Cause.AMBIGUOUS_DISK,
            f"{matches} disks match where {select.pick.of} must, each with its own {select.pick.by}; {lines}",
            hint="count the disks that the selector of the layout matches, and pick by what tells them apart",
        )
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


def describe_pattern(wanted: str | Match) -> str:
    """Return what a text must be like, in words."""
    match = Match(any=(wanted,)) if isinstance(wanted, str) else wanted
    parts = [" or ".join(f"'{one}'" for one in match.any)] if match.any else []
    parts += [f"not '{one}'" for one in match.none]
    return ", ".join(parts)


def describe_selector(select: Selector) -> str:
    """Return `select` in words."""
    parts = [
        f"{name} {describe_pattern(wanted)}"
        for name in ("serial", "model", "wwn", "bus", "path", "controller", "bay")
        if (wanted := getattr(select, name))
    ]
    parts += [f"at least {format_bytes(select.size_min_bytes)}"] if select.size_min_bytes else []
    parts += [f"at most {format_bytes(select.size_max_bytes)}"] if select.size_max_bytes else []
    if select.rotational is not None:
        parts.append("rotating" if select.rotational else "not rotating")
    parts += [f"sectors of {select.sector_bytes} bytes"] if select.sector_bytes else []
    if select.pick:
        parts.append(f"number {select.pick.nth} of {select.pick.of} by {select.pick.by}")
    return ", ".join(parts) or "any properties"
