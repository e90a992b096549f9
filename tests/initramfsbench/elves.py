"""Small ELF files made by hand, for the tests of what reads them."""

from __future__ import annotations

import struct


def made(*, needed: tuple[str, ...] = (), runpath: str = "", rpath: str = "", interpreter: str = "") -> bytes:
    """Return a small ELF file with these requests, loaded at an address that is not its file offset."""
    base, start = 0x400000, 0x400
    strings = b"\0"
    entries: list[tuple[int, int]] = []
    for tag, text in [(1, name) for name in needed] + [(29, runpath)] * bool(runpath) + [(15, rpath)] * bool(rpath):
        entries.append((tag, len(strings)))
        strings += text.encode() + b"\0"
    table = start + 16 * (len(entries) + 2)
    entries += [(5, base + table), (0, 0)]
    dynamic = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    interp_at = table + len(strings)
    body = dynamic + strings + interpreter.encode() + b"\0"
    segments = [(1, 0, base, interp_at + len(interpreter) + 1), (2, start, base + start, len(dynamic))]
    if interpreter:
        segments.append((3, interp_at, base + interp_at, len(interpreter) + 1))
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, len(segments), 0, 0, 0
    )
    rows = b"".join(struct.pack("<IIQQQQQQ", kind, 4, at, where, where, n, n, 8) for kind, at, where, n in segments)
    return (head + rows).ljust(start, b"\0") + body
