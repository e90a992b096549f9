"""Disks and what is on them, in words, each on one line; and text that may hold names of files, fit for the wire.

Serials and labels are what a machine says of itself: one with a line break in it must not add a line to a plan, which
people paste into a root shell.
"""

from __future__ import annotations

from cloner_core.facts import Disk
from cloner_core.sizes import format_bytes


def describe_disk(disk: Disk) -> str:
    """Return one disk in words: path, model, serial, size."""
    parts = [disk.model, f"serial {disk.serial}" if disk.serial else "no serial", format_bytes(disk.size_bytes)]
    return _line(f"{disk.path} ({', '.join(part for part in parts if part)}, {disk.sector_bytes}-byte sectors)")


def describe_content(disk: Disk) -> list[str]:
    """Return one line for each signature on `disk`, or a single line saying that there is none."""
    lines = []
    for found in disk.signatures:
        label = f" '{found.label}'" if found.label else ""
        uuid = f" {found.uuid}" if found.uuid else ""
        lines.append(_line(f"{found.device}: {found.kind or 'unknown content'}{label}{uuid}"))
    return lines or ["no signature found (blank or unknown content)"]


def sendable(text: str) -> str:
    """Return `text` with what is no Unicode escaped: names of files that are no UTF-8 cannot be sent as JSON."""
    return text.encode(errors="backslashreplace").decode()


def _line(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
