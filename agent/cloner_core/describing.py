"""Disks and what is on them, in words, each on one line; and text that may hold names of files, fit for the wire.

Serials and labels are what a machine says of itself: one with a line break in it must not add a line to a plan, which
people paste into a root shell.
"""

from __future__ import annotations

from cloner_core.facts import Disk, Signature
from cloner_core.sizes import format_bytes

# What blkid calls them says nothing to who has to decide.
_KINDS = {
    "ntfs": "ntfs (Windows)",
    "BitLocker": "BitLocker (encrypted Windows)",
    "crypto_LUKS": "LUKS (encrypted)",
    "LVM2_member": "LVM volume group member",
    "linux_raid_member": "RAID member",
    "zfs_member": "ZFS pool member",
}


def describe_disk(disk: Disk) -> str:
    """Return one disk in words: path, model, serial, size."""
    parts = [disk.model, f"serial {disk.serial}" if disk.serial else "no serial", format_bytes(disk.size_bytes)]
    return one_line(f"{disk.path} ({', '.join(part for part in parts if part)}, {disk.sector_bytes}-byte sectors)")


def describe_signature(found: Signature, *, with_uuid: bool = True) -> str:
    """Return one thing that was recognised in words: "/dev/vda3: ext4 'root' with Debian 12, host db01"."""
    label = f" '{found.label}'" if found.label else ""
    uuid = f" {found.uuid}" if found.uuid and with_uuid else ""
    system = f" with {found.system}" if found.system else ""
    return one_line(f"{found.device}: {_KINDS.get(found.kind, found.kind) or 'unknown content'}{label}{uuid}{system}")


def describe_content(disk: Disk) -> list[str]:
    """Return one line for each signature on `disk`, or a single line saying that there is none."""
    lines = [describe_signature(found) for found in disk.signatures]
    return lines or ["no signature found (blank or unknown content)"]


def sendable(text: str) -> str:
    """Return `text` with what is no Unicode escaped: names of files that are no UTF-8 cannot be sent as JSON."""
    return text.encode(errors="backslashreplace").decode()


def obeyed_by_no_terminal(text: str) -> str:
    """Return `text`, of one line or several, with every other control character as "?"; a tab becomes a blank."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else " " if c == "\t" else "?" for c in text)


def one_line(text: str) -> str:
    """Return `text` with every character that is not printable, a line break too, as "?"."""
    return "".join(character if character.isprintable() else "?" for character in text)
