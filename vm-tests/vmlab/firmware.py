"""UEFI firmware for machines: which files, and the copy of the variables that is one machine's NVRAM."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from vmlab.errors import LabError

OVMF = Path("/usr/share/OVMF")


@dataclass(frozen=True, slots=True)
class _Files:
    code: str
    variables: str
    is_secure: bool


class Firmware(Enum):
    """What the machine starts with."""

    BIOS = _Files("", "", False)
    UEFI = _Files("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd", False)
    SECURE_BOOT = _Files("OVMF_CODE_4M.ms.fd", "OVMF_VARS_4M.ms.fd", True)  # Microsoft's keys enrolled


def blank_variables(firmware: Firmware, path: Path) -> Path:
    """Put factory-fresh variables at `path` and return it; one copy per machine, kept between its boots."""
    source = OVMF / firmware.value.variables
    if not source.is_file():
        raise LabError(f"{source} is missing", hint="install the package ovmf")
    shutil.copyfile(source, path)
    return path


def arguments(firmware: Firmware, variables: Path) -> list[str]:
    """Return QEMU's arguments for the firmware; none for BIOS, which is QEMU's default."""
    if firmware is Firmware.BIOS:
        return []
    code = f"if=pflash,format=raw,unit=0,readonly=on,file={OVMF / firmware.value.code}"
    words = ["-drive", code, "-drive", f"if=pflash,format=raw,unit=1,file={variables}"]
    if firmware.value.is_secure:
        words += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
    return words
