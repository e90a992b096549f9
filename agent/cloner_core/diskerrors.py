"""What a failing disk says of itself: the kernel's I/O errors with device and offset, and its SMART data in a line.

Pure: takes the texts. The words of the kernel are those of block/blk-mq.c (blk_print_req_error) and fs/buffer.c, the
fields of SMART those of `smartctl --json`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

import msgspec

from cloner_core.decoding import UNREADABLE

_SECTOR_BYTES = 512  # the kernel counts in these whatever the disk's own are
# "operation not supported" is no fault: so end discards that a disk does not know.
_REQUEST = re.compile(
    r"(?P<kind>I/O|critical medium|critical target|protection|timeout|device offline|recoverable transport) error, "
    r"dev (?P<device>[\w!-]{1,63}), sector (?P<sector>\d{1,19})(?: op 0x[0-9a-f]+:\((?P<operation>[A-Z_]+)\))?"
)
_BUFFER = re.compile(r"Buffer I/O error on dev(?:ice)? (?P<device>[\w!-]{1,63}), logical block")
_TIME = re.compile(r"\[\s*(?P<seconds>\d{1,12}\.\d{1,6})\]")
# Reallocated, reported uncorrectable, pending and offline uncorrectable sectors, CRC errors of the cable.
_ATA_ATTRIBUTES = {5: "reallocated", 187: "uncorrectable", 197: "pending", 198: "offline uncorrectable", 199: "CRC"}


@dataclass(frozen=True, slots=True)
class DiskError:
    """One I/O error as the kernel logged it."""

    disk: str  # "/dev/vda"
    offset_bytes: int | None  # None: the kernel named no sector
    kind: str  # "I/O", "critical medium", …
    operation: str  # "write", "read", …; "" not told

    def __str__(self) -> str:
        """Return it in words."""
        where = "" if self.offset_bytes is None else f" at byte {self.offset_bytes}"
        return f"{self.kind} error of {self.disk}{where}" + (f" ({self.operation})" if self.operation else "")


def find_disk_errors(kernel_log: str, disks: Collection[str], since_s: float = 0.0) -> tuple[DiskError, ...]:
    """Return the I/O errors of `disks` ("/dev/vda") in a kernel log, in its order, each once.

    Lines stamped ("[   12.345678] …") before `since_s` do not count.
    """
    found: dict[DiskError, None] = {}
    for line in kernel_log.splitlines():
        stamp = _TIME.match(line)
        if stamp is not None and float(stamp["seconds"]) < since_s:
            continue
        match = _REQUEST.search(line)
        buffer = None if match else _BUFFER.search(line)
        told = match or buffer
        disk = disk_of(told["device"], disks) if told else ""
        if match is not None and disk:
            error = DiskError(disk, int(match["sector"]) * _SECTOR_BYTES, match["kind"], _words(match["operation"]))
            found.setdefault(error)
        elif buffer is not None and disk:
            found.setdefault(DiskError(disk, None, "I/O", ""))
    return tuple(found)


def disk_of(device: str, disks: Collection[str]) -> str:
    """Return which of `disks` the kernel's `device` ("vda", "vda2", "nvme0n1p3") is or is on; "" none."""
    path = f"/dev/{device}"
    for disk in disks:
        separator = "p" if disk[-1:].isdigit() else ""
        if path == disk or re.fullmatch(re.escape(disk) + separator + r"\d{1,4}", path, re.ASCII):
            return disk
    return ""


class _Raw(msgspec.Struct, frozen=True):
    value: int = 0


class _Attribute(msgspec.Struct, frozen=True):
    id: int = 0
    raw: _Raw = _Raw()


class _Attributes(msgspec.Struct, frozen=True):
    table: tuple[_Attribute, ...] = ()


class _Nvme(msgspec.Struct, frozen=True):
    critical_warning: int = 0
    available_spare: int | None = None
    percentage_used: int | None = None
    media_errors: int = 0


class _Status(msgspec.Struct, frozen=True):
    passed: bool


class _Message(msgspec.Struct, frozen=True):
    string: str = ""


class _Run(msgspec.Struct, frozen=True):
    messages: tuple[_Message, ...] = ()


class _Smart(msgspec.Struct, frozen=True):
    smartctl: _Run = _Run()
    smart_status: _Status | None = None
    ata_smart_attributes: _Attributes = _Attributes()
    nvme_smart_health_information_log: _Nvme | None = None
    scsi_grown_defect_list: int = 0


def smart_summary(text: str) -> str:
    """Return what `smartctl --json --all` told of a disk, in a line; a disk without SMART is said to have none."""
    try:
        told = msgspec.json.decode(text, type=_Smart)
    except UNREADABLE:
        return "no SMART data: smartctl told nothing readable"
    if told.smart_status is None:
        why = "; ".join(" ".join(message.string.split()) for message in told.smartctl.messages[:3] if message.string)
        return f"no SMART data: {why or 'the disk offers none'}"[:300]
    parts = ["passed" if told.smart_status.passed else "FAILED"]
    for attribute in told.ata_smart_attributes.table:
        if attribute.id in _ATA_ATTRIBUTES and attribute.raw.value:
            parts.append(f"{_ATA_ATTRIBUTES[attribute.id]} {attribute.raw.value}")
    if (nvme := told.nvme_smart_health_information_log) is not None:
        parts += [f"critical warning {nvme.critical_warning:#04x}"] if nvme.critical_warning else []
        parts += [f"media errors {nvme.media_errors}"] if nvme.media_errors else []
        parts += [f"spare {nvme.available_spare}%"] if nvme.available_spare is not None else []
        parts += [f"used {nvme.percentage_used}%"] if nvme.percentage_used is not None else []
    if told.scsi_grown_defect_list:
        parts.append(f"grown defects {told.scsi_grown_defect_list}")
    return ", ".join(parts)[:300]


def _words(operation: str | None) -> str:
    return (operation or "").lower().replace("_", " ")
