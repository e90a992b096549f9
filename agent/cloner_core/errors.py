"""The errors of Cloner: one root, one class per reaction of the caller, each with its exit status.

Must not hold wording of a single feature: a message is written where the fault is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class ExitStatus(IntEnum):
    """Exit statuses of every Cloner program; listed in `cloner --help` and docs/exit-status.md."""

    OK = 0
    FAILED = 1  # the work was tried and failed
    USAGE = 2  # the command line or a document is wrong; nothing was changed
    NOT_FOUND = 3  # a named node, image, layout or task does not exist
    REFUSED = 4  # the request is understood and not allowed now; nothing was changed
    CONFLICT = 5  # somebody else changed the thing first
    UNREACHABLE = 6  # the server does not answer
    INTEGRITY = 7  # bytes do not match their digest or signature
    INEXACT = 8  # a capture is complete but lists files that kept changing
    TIMEOUT = 9  # waited as long as asked, the work goes on
    INTERRUPTED = 130


FAILED_BASE = 20
"""Commands that look after nodes end with this plus the number of nodes that failed: 21 one, 22 two, …"""
FAILED_MOST = 100
"""The greatest number an exit status can tell: 120 means that many or more. Above 125 belongs to the shell."""


def failed_status(count: int) -> int:
    """Return the exit status that tells that `count` nodes failed; 0 for none."""
    return FAILED_BASE + min(count, FAILED_MOST) if count > 0 else ExitStatus.OK


class ClonerError(Exception):
    """A fault told to a person: what, on which object, value seen, value wanted; the hint says what to do."""

    exit_status: int = ExitStatus.FAILED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InvalidError(ClonerError):
    """Input that is wrong in itself; carries every fault found, never only the first."""

    exit_status = ExitStatus.USAGE

    def __init__(self, message: str, *, faults: Sequence[str] = (), hint: str = "") -> None:
        self.faults = tuple(faults)
        super().__init__("\n  - ".join((message, *self.faults)), hint=hint)


class NotFoundError(ClonerError):
    """A named thing does not exist."""

    exit_status = ExitStatus.NOT_FOUND


class RefusedError(ClonerError):
    """Understood, and not allowed in the present state; nothing was changed."""

    exit_status = ExitStatus.REFUSED


class ConflictError(ClonerError):
    """A compare-and-swap lost: the caller must read again."""

    exit_status = ExitStatus.CONFLICT


class UnreachableError(ClonerError):
    """The other side does not answer; trying again may help."""

    exit_status = ExitStatus.UNREACHABLE


class IntegrityError(ClonerError):
    """Bytes do not match the digest or signature that names them; they must not be used."""

    exit_status = ExitStatus.INTEGRITY
