"""Selectors for the disks of a golden node that fit other machines: by kind, not by serial.

A kind is bus, rotating or not, and class of size; of several of one kind the selector says which one, and of how many.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec

from cloner_core.describing import describe_disk
from cloner_core.errors import InvalidError
from cloner_core.facts import Disk
from cloner_core.layout import DiskLayout, Layout, Pick, Selector
from cloner_core.refusals import PlanError
from cloner_core.selectors import select_disks, why_not
from cloner_core.sizes import GIB, MIB

_ANY: Final = Selector()
_ALIKE = 1.5  # two disks differ in class when one is so many times as large
_Order = Literal["path", "bay", "serial", "wwn", "size"]
_ORDERS: Final[tuple[_Order, ...]] = ("path", "bay", "serial", "wwn", "size")


def can_be_chosen(disk: Disk) -> bool:
    """Whether a selector could ever choose `disk`, were it not in use."""
    return not why_not(Selector(), _at_rest(disk), ())


def select_used(disks: Sequence[Disk], used: Sequence[Disk]) -> dict[str, Selector]:
    """Return the selector of each used disk by path; `disks` are all that a selector could choose."""
    chosen = {}
    for disk in used:
        select, alike = _kind(disk, disks)
        if len(alike) > 1:
            select = msgspec.structs.replace(select, pick=_pick(disk, alike))
        chosen[disk.path] = select
    return chosen


def select_untouched(disks: Sequence[Disk], used: Sequence[Disk], excluded: Sequence[Disk]) -> list[Selector]:
    """Return selectors that mean the excluded disks and none that is used; on this machine at least."""
    found: list[Selector] = []
    for disk in excluded:
        select, _ = _kind(disk, disks)
        if select == Selector() or any(not why_not(select, _at_rest(one), ()) for one in used):
            select = _place(disk, used, select)
        if select not in found:
            found.append(select)
    return found


def check_choice(layout: Layout, disks: Sequence[Disk], wanted: Mapping[str, str]) -> None:
    """Raise InvalidError unless the selectors of `layout` choose the disks `wanted` (path by id) of this machine."""
    try:
        chosen = select_disks(layout, [_at_rest(disk) for disk in disks])
    except PlanError as refusal:
        raise InvalidError(
            "the disks of this machine cannot be told apart by what other machines have too",
            faults=[refusal.message],
            hint="exclude a disk (--exclude-devices), or write the selectors by hand: cloner disklayout-upload",
        ) from refusal
    wrong = [f"'{name}' chooses {describe_disk(disk)}" for name, disk in chosen.items() if wanted[name] != disk.path]
    if wrong:
        raise InvalidError("the selectors found for the disks of this machine choose others", faults=wrong)


def _kind(disk: Disk, among: Sequence[Disk]) -> tuple[Selector, list[Disk]]:
    """Return the selector of a kind of disk, and all disks `among` that are of it."""
    alike = [one for one in among if one.bus == disk.bus]
    select = Selector(bus=disk.bus)
    if any(one.is_rotational != disk.is_rotational for one in alike):
        select = msgspec.structs.replace(select, rotational=disk.is_rotational)
        alike = [one for one in alike if one.is_rotational == disk.is_rotational]
    sizes = sorted({one.size_bytes for one in alike})
    at = sizes.index(disk.size_bytes)
    low = next((index for index in range(at, 0, -1) if sizes[index] > _ALIKE * sizes[index - 1]), 0)
    high = next((index for index in range(at, len(sizes) - 1) if sizes[index + 1] > _ALIKE * sizes[index]), -1)
    least = _between(sizes[low - 1], sizes[low]) if low else 0
    most = _between(sizes[high], sizes[high + 1]) - 1 if high >= 0 else 0
    select = msgspec.structs.replace(select, size_min_bytes=least, size_max_bytes=most)
    return select, [one for one in alike if not why_not(select, _at_rest(one), ())]


def _between(small: int, large: int) -> int:
    """Return a size between two, in the middle of their ratio, as people would write it."""
    middle = math.isqrt(small * large)
    unit = GIB if middle >= 16 * GIB else MIB
    return middle // unit * unit or middle


def _pick(disk: Disk, alike: Sequence[Disk]) -> Pick:
    """Return which of the disks that are `alike` it is, by the first thing that tells all of them apart."""
    by = next((one for one in _ORDERS if _tells(one, alike)), _ORDERS[0])
    # the order of selectors is the only one; each number is tried on the disks themselves
    for nth in range(1, len(alike) + 1):
        pick = Pick(nth=nth, of=len(alike), by=by)
        if _picks(pick, disk, alike):
            return pick
    return Pick(nth=1, of=len(alike), by=by)


def _tells(by: _Order, alike: Sequence[Disk]) -> bool:
    field = {"path": "by_path", "size": "size_bytes"}.get(by, str(by))
    values = [getattr(disk, field) for disk in alike]
    return all(values) and len(set(values)) == len(values)


def _picks(pick: Pick, disk: Disk, alike: Sequence[Disk]) -> bool:
    probe = Layout(name="probe", disks=(DiskLayout("disk", Selector(pick=pick)),))
    try:
        return select_disks(probe, [_at_rest(one) for one in alike])["disk"].path == disk.path
    except PlanError:
        return False


def _place(disk: Disk, used: Sequence[Disk], kind: Selector) -> Selector:
    """Return what tells a disk that is not to be touched from all that are used."""
    for name, value in (("path", disk.by_path), ("bay", disk.bay), ("model", disk.model), ("serial", disk.serial)):
        told = msgspec.structs.replace(_ANY, **{name: value})
        if value and all(why_not(told, _at_rest(one), ()) for one in used):
            return msgspec.structs.replace(kind, **{name: value})
    return msgspec.structs.replace(kind, serial=disk.serial)


def _at_rest(disk: Disk) -> Disk:
    """Return `disk` as a selector sees it in a machine that runs nothing from it."""
    return msgspec.structs.replace(disk, is_mounted=False)
