"""How a program on a node tells the test what it found: one line for each fact on the serial console."""

from __future__ import annotations

import json
import sys

import msgspec

MARK = "workbench: "


def tell(name: str, value: object) -> None:
    """Send one fact, anything that JSON holds or a msgspec struct."""
    # In ASCII, whatever the console makes of other characters.
    sys.stdout.write(f"{MARK}{name}={json.dumps(msgspec.to_builtins(value))}\n")
    sys.stdout.flush()
