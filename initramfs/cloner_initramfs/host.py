"""Runs the few programs the builder needs (apt-get, dpkg-deb, pip, depmod); the only module here that starts any.

Must not decide anything: what is run, and what its output means, is the caller's.
"""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from cloner_core.errors import ClonerError

log = logging.getLogger(__name__)

TAIL_LINES = 15


class ProgramError(ClonerError):
    """A program the builder needs ended with a failure; the message carries the end of what it said."""


def run(
    argv: Sequence[str | Path],
    *,
    timeout_s: float = 600,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> str:
    """Run one program without a shell and return its stdout.

    `environment` None passes a fixed minimal one; pip and apt get the caller's, because people configure both there.
    Raises ProgramError when the status is not 0 or the time is over.
    """
    words = [str(word) for word in argv]
    log.debug("run: %s", shlex.join(words))
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=dict(environment) if environment is not None else minimal_environment(),
            cwd=directory,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError as error:
        raise ProgramError(f"{words[0]} is not installed", hint="run ./run setup") from error
    except subprocess.TimeoutExpired as error:
        raise ProgramError(f"{shlex.join(words)} did not end within {timeout_s:.0f} s") from error
    if done.returncode != 0:
        tail = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()[-TAIL_LINES:]
        raise ProgramError(f"{shlex.join(words)} ended with status {done.returncode}:\n" + "\n".join(tail))
    return done.stdout.decode(errors="surrogateescape")


def pipe(first: Sequence[str | Path], second: Sequence[str | Path], *, timeout_s: float = 600) -> None:
    """Run `first | second`; both must end with status 0, else raises ProgramError."""
    environment = minimal_environment()
    with subprocess.Popen(
        [str(word) for word in first],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    ) as source:
        done = subprocess.run(
            [str(word) for word in second],
            stdin=source.stdout,
            capture_output=True,
            env=environment,
            timeout=timeout_s,
            check=False,
        )
    if source.returncode != 0 or done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise ProgramError(
            f"{shlex.join(map(str, first))} | {shlex.join(map(str, second))} ended with "
            f"{source.returncode} and {done.returncode}: {said}"
        )


def minimal_environment() -> dict[str, str]:
    """Return the environment of every program whose behaviour must not depend on the caller's."""
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}


def caller_environment() -> dict[str, str]:
    """Return the caller's environment with a fixed locale, for programs people configure by it."""
    return {**os.environ, "LC_ALL": "C.UTF-8"}
