"""How a program on a node tells the test what it found: one line for each fact on the serial console."""

from __future__ import annotations

import sys

import msgspec

MARK = "workbench: "


def tell(name: str, value: object) -> None:
    """Send one fact, anything that JSON holds or a msgspec struct."""
    sys.stdout.write(f"{MARK}{name}={msgspec.json.encode(value).decode('ascii', 'backslashreplace')}\n")
    sys.stdout.flush()
