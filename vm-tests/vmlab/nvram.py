"""Reads and changes the boot variables of a machine's NVRAM in its file, while the machine is off.

An independent reader (virt-firmware), so that what the agent wrote is judged by other code than its own.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

from virt.firmware.efi import efivar, guids, ucs16
from virt.firmware.efi.bootentry import BootEntry as ParsedEntry
from virt.firmware.varstore.edk2 import Edk2VarStore

FILLER_GUID = "c10e0000-0000-4000-8000-00000000f111"
_FILLER_BYTES = 4000  # what one variable may hold differs from firmware to firmware
ENTRY_NAME = re.compile(r"Boot(?P<number>[0-9A-F]{4})")


@dataclass(frozen=True, slots=True)
class BootEntry:
    """One Boot#### variable."""

    number: int
    title: str
    path: str  # device path as text, as virt-firmware writes it
    raw: bytes  # the load option: the text leaves partition GUIDs out


@dataclass(frozen=True, slots=True)
class BootVariables:
    """What the firmware will do."""

    entries: dict[int, BootEntry]
    order: tuple[int, ...]
    next_entry: int | None  # BootNext; None when not set

    def titled(self, title: str) -> list[BootEntry]:
        """Return the entries of this title, by number."""
        return [entry for _, entry in sorted(self.entries.items()) if entry.title == title]


def boot_variables(path: Path) -> BootVariables:
    """Return the boot variables in this NVRAM file. Source: UEFI 2.10 §3.3."""
    variables = Edk2VarStore(str(path)).get_varlist()
    entries: dict[int, BootEntry] = {}
    order: tuple[int, ...] = ()
    next_entry: int | None = None
    for name, variable in variables.items():
        if match := ENTRY_NAME.fullmatch(str(name)):
            number = int(match["number"], 16)
            parsed = ParsedEntry(data=variable.data)
            entries[number] = BootEntry(number, str(parsed.title), str(parsed.devicepath), variable.data)
        elif str(name) == "BootOrder":
            order = tuple(value for (value,) in struct.iter_unpack("<H", variable.data))
        elif str(name) == "BootNext":
            (next_entry,) = struct.unpack("<H", variable.data)
    return BootVariables(entries, order, next_entry)


def forget_entries(path: Path) -> None:
    """Have the firmware forget every boot entry and the order, as a flat battery or an update does."""
    store = Edk2VarStore(str(path))
    variables = store.get_varlist()
    for name in [name for name in variables if ENTRY_NAME.fullmatch(name) or name in ("BootOrder", "BootNext")]:
        del variables[name]
    store.write_varstore(str(path), variables)


def fill(path: Path, *, free_bytes: int) -> None:
    """Leave no more than `free_bytes` of room in the store, as a vendor's variables do."""
    store = Edk2VarStore(str(path))
    variables = store.get_varlist()
    number = 0
    while (left := store.end - store.start - len(store.bytes_varlist(variables)) - free_bytes) > 200:
        name = f"Filler{number:03d}"
        content = bytes(min(_FILLER_BYTES, left - 100))
        variables[name] = efivar.EfiVar(
            ucs16.from_string(name), guid=guids.parse_str(FILLER_GUID), attr=7, data=content
        )
        number += 1
    store.write_varstore(str(path), variables)
