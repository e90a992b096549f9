"""Runs the programs of the lab on this machine: argv, no shell, a minimal environment, a time limit.

Must not know namespaces or machines; `lab` and `machine` build on it.
"""

from __future__ import annotations

import logging
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from vmlab.errors import LabError

log = logging.getLogger(__name__)

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"}
TAIL_LINES = 20


def run(argv: Sequence[str | Path], *, timeout_s: float = 120, stdin: bytes = b"", check: bool = True) -> str:
    """Run one program and return its stdout; see `run_bytes`."""
    return run_bytes(argv, timeout_s=timeout_s, stdin=stdin, check=check).decode(errors="surrogateescape")


def run_bytes(argv: Sequence[str | Path], *, timeout_s: float = 120, stdin: bytes = b"", check: bool = True) -> bytes:
    """Run one program and return its stdout.

    Raises LabError when it is missing, takes longer than `timeout_s`, or (with `check`) fails.
    """
    words = [str(word) for word in argv]
    log.debug("run: %s", shlex.join(words))
    try:
        done = subprocess.run(words, input=stdin, capture_output=True, env=ENVIRONMENT, timeout=timeout_s, check=False)
    except FileNotFoundError as error:
        raise LabError(f"{words[0]} is not installed", hint="run ./run setup") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{shlex.join(words)} did not end within {timeout_s:.0f} s") from error
    if check and done.returncode != 0:
        said = (done.stderr + done.stdout).decode(errors="replace").strip().splitlines()[-TAIL_LINES:]
        raise LabError(f"{shlex.join(words)} ended with status {done.returncode}:\n" + "\n".join(said))
    return done.stdout
