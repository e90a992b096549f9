r"""What a deploy writes into the firmware's boot variables: the entry, the order, and which entries go.

Pure: takes a snapshot of the variables, gives writes and deletions. The rules are measured ones (docs/adr/0041):
the network entry stays first so that the server keeps control, ours comes right behind it, because firmware that
falls through PXEv6 and HTTP boot first takes over a minute.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import msgspec

from cloner_core.efi import (
    HardDrive,
    LoadOption,
    build_load_option,
    build_order,
    disk_entry,
    entry_name,
    parse_load_option,
    parse_order,
)
from cloner_core.errors import InvalidError, RefusedError

OURS = "cloner "
"""Start of the description of every entry Cloner writes."""
_ENTRY = re.compile(r"Boot([0-9A-Fa-f]{4})")


class Nvram(msgspec.Struct, frozen=True):
    """The boot variables as they were read."""

    entries: dict[int, LoadOption]
    unreadable: tuple[int, ...] = ()  # numbers of entries that are no load option; never touched
    order: tuple[int, ...] = ()
    current: int | None = None  # the entry this boot used; None when the firmware does not say


class Write(msgspec.Struct, frozen=True):
    """One variable and its new value, without efivarfs's attributes."""

    name: str
    value: bytes


class Entry(msgspec.Struct, frozen=True):
    """One boot entry that there is to be."""

    number: int
    option: LoadOption


class NvramPlan(msgspec.Struct, frozen=True):
    """What to do, in this order: delete, write the entries, write the order.

    What the firmware holds already is not written again: its memory wears.
    """

    entries: tuple[Entry, ...]  # of each ESP; the first one is to boot
    delete: tuple[str, ...]
    writes: tuple[Write, ...]
    order: tuple[int, ...]

    @property
    def number(self) -> int:
        """The entry that boots the clone."""
        return self.entries[0].number


def read_nvram(variables: Mapping[str, bytes]) -> Nvram:
    """Return the boot variables among `variables` (name without GUID → value without attributes)."""
    entries: dict[int, LoadOption] = {}
    unreadable = []
    for name, value in variables.items():
        if not (match := _ENTRY.fullmatch(name)):
            continue
        number = int(match[1], 16)
        try:
            entries[number] = parse_load_option(value)
        except InvalidError:
            unreadable.append(number)
    current = parse_order(variables.get("BootCurrent", b""))
    return Nvram(
        entries=entries,
        unreadable=tuple(sorted(unreadable)),
        order=parse_order(variables.get("BootOrder", b"")),
        current=current[0] if current else None,
    )


def nvram_plan(
    before: Nvram,
    drives: Sequence[HardDrive],
    loader: str,
    *,
    description: str,
    policy: Literal["network-first", "local-first"],
    destroyed: Collection[str],
    live: Collection[str],
    is_netbooted: bool = False,
    keeps_place: bool = False,
) -> NvramPlan:
    r"""Return what makes the firmware boot `loader` ("\\EFI\\debian\\shimx64.efi") from `drives`, in their order.

    `destroyed` are GUIDs of partitions that this deploy overwrote, `live` those on any disk now. Entries for a
    destroyed partition go, whoever wrote them, and entries of ours for a partition that no longer exists, unless their
    number serves a new one; an entry of another system on a disk that is merely absent stays. Where no entry is known
    to be for the network, ours come first, or with `keeps_place` where ours was: one before it may be.
    Raises RefusedError when all entry numbers are taken.
    """
    stale = {number for number, option in before.entries.items() if _is_stale(option, drives, loader, destroyed, live)}
    entries: list[Entry] = []
    for index, drive in enumerate(drives):
        same = sorted(number for number, option in before.entries.items() if is_same(option, drive, loader))
        stale.update(same)
        taken = {entry.number for entry in entries}
        number = next(iter([*same, *_reusable(before, stale - taken)]), None)
        if number is None:
            number = _free_number(before, taken)
        stale.discard(number)
        named = f"{description}, disk {index + 1}" if index else description
        entries.append(Entry(number, disk_entry(named, drive, loader)))
    numbers = tuple(entry.number for entry in entries)
    network = network_entry(before, is_netbooted=is_netbooted)
    order = new_boot_order(before, numbers, stale, policy, network)
    if keeps_place and policy == "network-first" and network is None:
        order = _in_place(before, numbers, order)
    writes = [
        Write(entry_name(entry.number), build_load_option(entry.option))
        for entry in entries
        if before.entries.get(entry.number) != entry.option
    ]
    if before.order != order:
        writes.append(Write("BootOrder", build_order(order)))
    return NvramPlan(
        entries=tuple(entries),
        delete=tuple(entry_name(one) for one in sorted(stale)),
        writes=tuple(writes),
        order=order,
    )


def _is_stale(
    option: LoadOption, drives: Sequence[HardDrive], loader: str, destroyed: Collection[str], live: Collection[str]
) -> bool:
    old = option.hard_drive
    if old is None or any(is_same(option, drive, loader) for drive in drives):
        return False
    is_overwritten = old.guid in destroyed or any(old.guid == drive.guid for drive in drives)
    return is_overwritten or (option.description.startswith(OURS) and old.guid not in live)


def _in_place(before: Nvram, ours: Sequence[int], order: tuple[int, ...]) -> tuple[int, ...]:
    """Return `order` with `ours` where the first of them was; as it is where none of them was."""
    place = next((at for at, number in enumerate(before.order) if number in ours), 0)
    ahead = [number for number in dict.fromkeys(before.order[:place]) if number in order]
    return (*ahead, *(number for number in order if number not in ahead))


def after_plan(before: Nvram, plan: NvramPlan) -> Nvram:
    """Return the variables as they are once `plan` was applied to `before`."""
    entries = {number: option for number, option in before.entries.items() if entry_name(number) not in plan.delete}
    entries |= {entry.number: entry.option for entry in plan.entries}
    return msgspec.structs.replace(before, entries=entries, order=plan.order)


def _reusable(before: Nvram, stale: Collection[int]) -> list[int]:
    """Return the numbers among `stale` that Cloner had written: a number of our own is used again."""
    return sorted(number for number in stale if before.entries[number].description.startswith(OURS))


def is_same(option: LoadOption, drive: HardDrive, loader: str) -> bool:
    """Whether `option` boots `loader` from the partition with `drive`'s GUID; FAT paths ignore case."""
    found = option.hard_drive
    return found is not None and found.guid == drive.guid and option.loader.lower() == loader.lower()


def new_boot_order(
    before: Nvram,
    ours: Sequence[int],
    gone: Collection[int],
    policy: Literal["network-first", "local-first"],
    network: int | None,
) -> tuple[int, ...]:
    """Return the new BootOrder: network entry, ours, the rest (or ours first); no dangling and no double numbers."""
    known = before.entries.keys() | set(before.unreadable)
    rest = [number for number in dict.fromkeys(before.order) if number in known and number not in {*ours, *gone}]
    if network is None or network in gone or network in ours:
        return (*ours, *rest)
    rest = [number for number in rest if number != network]
    first = (network, *ours) if policy == "network-first" else (*ours, network)
    return (*first, *rest)


def network_first(before: Nvram, *, is_netbooted: bool = False) -> tuple[int, ...] | None:
    """Return BootOrder with the network entry before all others; None where it is so, or where there is none."""
    network = network_entry(before, is_netbooted=is_netbooted)
    if network is None or before.order[:1] == (network,):
        return None
    return tuple(dict.fromkeys((network, *before.order)))


def network_entry(before: Nvram, *, is_netbooted: bool = False) -> int | None:
    """Return the entry used for the network: this boot's, else the first network entry in the order.

    Vendors write network entries without a MAC address (BBS, private device paths). `is_netbooted` says that this
    very boot came over the network: then its entry is one, whatever its form, unless it names a medium or the firmware.
    None when there is none (a machine started without the network).
    """
    current = before.current
    if is_netbooted and current is not None:
        option = before.entries.get(current)
        if current in before.unreadable or (option is not None and not option.is_local):
            return current
    candidates = (*(() if current is None else (current,)), *before.order)
    return next((one for one in candidates if (found := before.entries.get(one)) and found.is_network), None)


def nvram_faults(after: Nvram, plan: NvramPlan) -> list[str]:
    """Return what differs between the variables as read back and `plan`; an empty list when it took."""
    faults = []
    for entry in plan.entries:
        got, drive = after.entries.get(entry.number), entry.option.hard_drive
        if got is None or drive is None or not is_same(got, drive, entry.option.loader):
            faults.append(f"{entry_name(entry.number)} does not name our loader")
        elif not got.attributes & 1:
            faults.append(f"{entry_name(entry.number)} is not active")
    if after.order != plan.order:
        faults.append(f"BootOrder is {describe_order(after.order)}, want {describe_order(plan.order)}")
    return faults


def describe(nvram: Nvram) -> tuple[str, ...]:
    """Return the boot variables in words, one line each, for the receipt."""
    lines = [f"BootOrder {describe_order(nvram.order)}"]
    for number, option in sorted(nvram.entries.items()):
        drive = option.hard_drive
        where = f" HD({drive.number},GPT,{drive.guid})" if drive else ""
        network = " network" if option.is_network else ""
        text = option.description.encode("utf-8", "replace").decode()
        lines.append(f"{entry_name(number)} '{text}'{network}{where}{option.loader}")
    return tuple(line.encode("utf-8", "replace").decode() for line in lines)


def describe_order(order: tuple[int, ...]) -> str:
    """Return a boot order as efibootmgr prints it."""
    return ",".join(f"{number:04X}" for number in order)


def _free_number(before: Nvram, more: Collection[int]) -> int:
    taken = {*before.entries, *before.unreadable, *before.order, *more}
    for number in range(0x10000):
        if number not in taken:
            return number
    raise RefusedError("the firmware has no free boot entry number", hint="remove boot entries in firmware setup")
