"""Sizes as people write them, and as they read them."""

from __future__ import annotations

import re

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
_UNITS = {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZE = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,6}))? ?([kKMGT]?i?B)")
MAX_BYTES = 1 << 62
_BIT_UNITS = {"k": 10**3, "M": 10**6, "G": 10**9}
_BITS = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) ?([kMG])bit")


def parse_bytes(text: str) -> int:
    """Return the bytes of "512MiB", "1.5 GiB", "2TB"; binary and decimal units are told apart.

    Raises ValueError when it is not such a size or has a fraction of a byte.
    """
    match = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(match[3]) if match else None
    if match is None or unit is None:
        raise ValueError(f"'{text}' is not a size: want a number and a unit, as 512MiB, 1.5GiB or 2TB")
    fraction = match[2] or ""
    scaled = int(match[1] + fraction) * unit
    divisor: int = 10 ** len(fraction)
    value, rest = divmod(scaled, divisor)
    if rest:
        raise ValueError(f"'{text}' is not a whole number of bytes")
    if value > MAX_BYTES:
        raise ValueError(f"'{text}' is more than {format_bytes(MAX_BYTES)}")
    return value


def parse_rate(text: str) -> int:
    """Return the bytes a second of "100Mbit", "1.5 Gbit/s", "12MiB/s"; bits are decimal, as links are.

    Raises ValueError when it is not such a rate.
    """
    spelt = text.strip().removesuffix("/s")
    match = _BITS.fullmatch(spelt)
    if match is None:
        try:
            rate = parse_bytes(spelt)
        except ValueError:
            raise ValueError(f"'{text}' is not a rate: want a number and a unit, as 100Mbit or 12MiB") from None
    else:
        rate = int(float(match[1]) * _BIT_UNITS[match[2]]) // 8
    if not 0 < rate <= MAX_BYTES:
        raise ValueError(f"'{text}' is not a rate above 0 bytes a second")
    return rate


def format_bytes(size_bytes: int) -> str:
    """Return `size_bytes` for people: one decimal, binary units."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size_bytes >= _UNITS[unit]:
            return f"{size_bytes / _UNITS[unit]:.1f} {unit}"
    return f"{size_bytes} B"


def format_rate(rate_bps: float) -> str:
    """Return bits a second for people: one decimal at most, decimal units, as links are."""
    for unit, factor in (("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3)):
        if rate_bps >= factor:
            return f"{rate_bps / factor:.1f}".removesuffix(".0") + f" {unit}"
    return f"{rate_bps:.0f} bit/s"


def document_bytes(size_bytes: int) -> str:
    """Return the shortest exact text that `parse_bytes` reads back as `size_bytes`."""
    for unit in ("TiB", "GiB", "MiB", "KiB", "TB", "GB", "MB", "kB"):
        if size_bytes and size_bytes % _UNITS[unit] == 0:
            return f"{size_bytes // _UNITS[unit]}{unit}"
    return f"{size_bytes}B"
