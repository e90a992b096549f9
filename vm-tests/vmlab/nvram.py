"""Reads the boot variables of a machine's NVRAM from its file, while the machine is off.

An independent reader (virt-firmware), so that what the agent wrote is judged by other code than its own.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

from virt.firmware.efi.bootentry import BootEntry as ParsedEntry
from virt.firmware.varstore.edk2 import Edk2VarStore

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
