"""Keeps the logs of a failed run where people find them; those of a good run are removed.

Must not judge; whoever runs the test says whether it failed.
"""

from __future__ import annotations

import re
import shutil
import sys
import time
from pathlib import Path
from typing import BinaryIO

CHECKOUT = Path(__file__).resolve().parents[2]
LOGS = CHECKOUT / ".cache" / "vmlab-logs"
SERIAL = ".serial.log"
QEMU = ".qemu.log"
SHOWN_CHARACTERS = (
    2000  # of the end of each serial log: a log file stays behind on a machine of a CI, what is printed not
)
# Colours and cursor movements of firmware and GRUB.
CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|[\x00-\x08\x0b-\x1f]")


def readable(said: bytes) -> str:
    """Return what a serial console said, without control sequences."""
    return CONTROL.sub(b"", said).decode(errors="replace")


class Evidence:
    """One folder of logs of one run."""

    def __init__(self, title: str, *, keep: bool = False) -> None:
        """Name the folder after the title and the moment; it is made with the first log."""
        plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", title).strip("-") or "lab"
        self.directory = LOGS / f"{time.strftime('%Y%m%d-%H%M%S')}-{plain}-{time.monotonic_ns() % 1_000_000:06d}"
        self.keep = keep
        self.failed = False

    def path(self, name: str) -> Path:
        """Return the place of a log, its folder made."""
        self.directory.mkdir(parents=True, exist_ok=True)
        return self.directory / name

    def open(self, name: str) -> BinaryIO:
        """Open a log for appending."""
        return self.path(name).open("ab")

    def close(self) -> None:
        """Say where the logs are when the run failed, and how its consoles end; remove them when it did not."""
        if not self.directory.is_dir():
            return
        if self.failed or self.keep:
            for log in self._consoles() if self.failed else ():
                end = readable(log.read_bytes())[-SHOWN_CHARACTERS:]
                print(f"vmlab: the end of {log.name}:\n{end or '(nothing)'}", file=sys.stderr)
            print(f"vmlab: logs are in {self.directory.relative_to(CHECKOUT)}", file=sys.stderr)
        else:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _consoles(self) -> list[Path]:
        """Return the logs of machines' serial consoles and of what their QEMU said."""
        return sorted(log for kind in (SERIAL, QEMU) for log in self.directory.glob(f"*{kind}"))
