"""Reads from an ELF file which libraries it needs, without running anything of it.

Pure: bytes in, values out. Only 64-bit little-endian files, which is what both architectures of ours are.
Source: System V ABI, chapter 5 (dynamic linking).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cloner_core.errors import InvalidError

MAGIC = b"\x7fELF\x02\x01"
PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NULL, DT_NEEDED, DT_STRTAB, DT_RPATH, DT_RUNPATH = 0, 1, 5, 15, 29


@dataclass(frozen=True, slots=True)
class Dynamic:
    """What the dynamic loader is asked for."""

    interpreter: str  # "" for a library or a static program
    needed: tuple[str, ...]
    search: tuple[str, ...]  # RUNPATH, else RPATH; may hold $ORIGIN


@dataclass(frozen=True, slots=True)
class _Segment:
    kind: int
    offset: int
    address: int
    size_bytes: int


def is_elf(head: bytes) -> bool:
    """Tell whether a file starting with these bytes is an ELF file of the kind read here."""
    return head.startswith(MAGIC)


def dynamic(content: bytes) -> Dynamic:
    """Return the loader's requests of one ELF file; all empty for a static program.

    Raises InvalidError when the file is cut short or its tables point outside.
    """
    if not is_elf(content):
        raise InvalidError("not a 64-bit little-endian ELF file")
    try:
        return _dynamic(content)
    except (struct.error, ValueError, OverflowError) as error:
        raise InvalidError(f"ELF file is damaged: {error}") from error


def _dynamic(content: bytes) -> Dynamic:
    segments = _segments(content)
    interpreter = ""
    entries: list[tuple[int, int]] = []
    for segment in segments:
        if segment.kind == PT_INTERP:
            interpreter = _string(content, segment.offset)
        elif segment.kind == PT_DYNAMIC:
            entries = _entries(content, segment)
    strings = next((value for tag, value in entries if tag == DT_STRTAB), None)
    if strings is None:
        return Dynamic(interpreter, (), ())
    start = _file_offset(segments, strings)

    def named(tag: int) -> tuple[str, ...]:
        return tuple(_string(content, start + value) for seen, value in entries if seen == tag)

    search = named(DT_RUNPATH) or named(DT_RPATH)
    return Dynamic(interpreter, named(DT_NEEDED), tuple(part for line in search for part in line.split(":")))


def _segments(content: bytes) -> list[_Segment]:
    (table,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    found = []
    for index in range(count):
        kind, _flags, offset, address, _physical, in_file = struct.unpack_from("<IIQQQQ", content, table + index * size)
        found.append(_Segment(kind, offset, address, in_file))
    return found


def _entries(content: bytes, segment: _Segment) -> list[tuple[int, int]]:
    entries = []
    for offset in range(segment.offset, segment.offset + segment.size_bytes, 16):
        tag, value = struct.unpack_from("<QQ", content, offset)
        if tag == DT_NULL:
            break
        entries.append((tag, value))
    return entries


def _file_offset(segments: list[_Segment], address: int) -> int:
    for segment in segments:
        if segment.kind == PT_LOAD and segment.address <= address < segment.address + segment.size_bytes:
            return address - segment.address + segment.offset
    raise ValueError(f"address {address:#x} is in no segment")


def _string(content: bytes, offset: int) -> str:
    return content[offset : content.index(b"\0", offset)].decode()
