"""Unified kernel images: one signed EFI program of kernel, initramfs and command line (UAPI.5).

Pure: the caller reads the pieces of the file that are asked for. A command line inside a signature cannot be rewritten,
so it serves a clone only when it names the root by something that does not change from clone to clone.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable

import msgspec

from cloner_core.bootfiles.image import version_key

HEAD_BYTES = 64 << 10
"""Of the file: more than its headers ever take."""
MAX_COMMAND_LINE_BYTES = 64 << 10

_ROOT = re.compile(r"(?<!\S)root=(\S*)")
_LABELLED = re.compile(r"(?:/dev/disk/by-)?((?i:label|partlabel))[/=](.+)")
_VERITY = re.compile(r"(?<!\S)(?:roothash|usrhash|systemd\.verity_root_hash)=")


class Section(msgspec.Struct, frozen=True):
    """Where a section of a PE program lies in its file."""

    name: str  # ".cmdline"
    offset: int
    size: int


def sections(head: bytes) -> tuple[Section, ...]:
    """Return the sections of the PE program that starts with `head`; () when it is none. Source: PE/COFF §2–4."""
    if head[:2] != b"MZ" or len(head) < 0x40:
        return ()
    (pe,) = struct.unpack_from("<I", head, 0x3C)
    if head[pe : pe + 4] != b"PE\0\0" or pe + 24 > len(head):
        return ()
    count, optional_bytes = struct.unpack_from("<H12xH", head, pe + 6)
    found = []
    for index in range(count):
        at = pe + 24 + optional_bytes + 40 * index
        if at + 40 > len(head):
            return ()
        name, virtual_bytes, raw_bytes, raw_offset = struct.unpack_from("<8sI4xII", head, at)
        # the raw size is rounded up to the file's alignment; what is meant is the virtual one
        size = min(virtual_bytes or raw_bytes, raw_bytes)
        found.append(Section(name.rstrip(b"\0").decode("latin-1"), raw_offset, size))
    return tuple(found)


def is_unified_name(path: str) -> bool:
    """Whether `path`, relative to the ESP, is where unified kernel images lie."""
    return re.fullmatch(r"EFI/Linux/[^/]+\.efi", path, re.IGNORECASE) is not None


def read_command_line(read: Callable[[int, int], bytes]) -> str | None:
    """Return the command line of a file of which `read` gives the bytes at (offset, size); None: no unified image."""
    pieces = sections(read(0, HEAD_BYTES))
    if not any(one.name == ".linux" for one in pieces):
        return None
    place = next((one for one in pieces if one.name == ".cmdline"), None)
    return command_line(read(place.offset, min(place.size, MAX_COMMAND_LINE_BYTES))) if place else ""


def command_line(content: bytes) -> str:
    """Return the content of .cmdline as text."""
    return content.split(b"\0", 1)[0].decode("utf-8", "replace").strip()


def unified_fault(command_line: str, *, root: str, root_part_uuid: str) -> str:
    """Return why a clone whose root= would be `root` cannot boot by an image with this command line; "" when it can.

    A root named by label is taken here, for it is the layout that says whether the clone has that label.
    """
    if _VERITY.search(command_line):
        return "it boots only the very root whose verity hash it names"
    named = _ROOT.findall(command_line)
    if not named or named[-1] == "gpt-auto":
        return "" if root_part_uuid else "it finds the root by the type of its partition, and the root is no partition"
    if named[-1] == root or _LABELLED.fullmatch(named[-1]):
        return ""
    return f"it has root={named[-1]} in its signed command line, and a clone has another"


def labels_named(command_line: str) -> tuple[str, str]:
    """Return the label of the root filesystem and that of its partition that a command line asks for; "" for none."""
    named = _ROOT.findall(command_line)
    match = _LABELLED.fullmatch(named[-1]) if named else None
    if match is None:
        return "", ""
    return (match[2], "") if match[1].lower() == "label" else ("", match[2])


def newest(paths: Iterable[str]) -> str:
    """Return the newest image by its name, rescue kernels last."""
    return max(paths, key=lambda path: ("rescue" not in path, version_key(path.rpartition("/")[2]), path))
