"""EFI programs as the tests need them: headers that name sections, and the sections."""

from __future__ import annotations

import struct


def pe(*wanted: tuple[str, bytes]) -> bytes:
    """Return a PE program with these sections: as much of one as finds them (PE/COFF §2-4)."""
    head = bytearray(b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40) + b"PE\0\0")
    head += struct.pack("<HHIIIHH", 0x8664, len(wanted), 0, 0, 0, 0, 0)
    body, start = b"", 0x400
    for name, content in wanted:
        raw = len(content) + -len(content) % 512
        head += struct.pack("<8sIIII16x", name.encode(), len(content), 0, raw, start + len(body))
        body += content.ljust(raw, b"\0")
    return bytes(head.ljust(start, b"\0")) + body


def grub_core(size: int) -> bytes:
    """Return as much of a core image of GRUB for BIOS, of `size` bytes, as its embedding looks at."""
    sectors = -(-size // 512)
    return bytes(500) + struct.pack("<QHH", 2, sectors - 1, 0x820) + b"c" * (size - 512)
