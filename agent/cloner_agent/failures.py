"""How a deploy ends badly: typed stops, and the naming of any exception as a `Failure` with cause and hint.

Must not talk to the server or to the console.
"""

from __future__ import annotations

import errno
from typing import Any

from cloner_agent.host import LOOK_AT_LOG, ToolError
from cloner_core.describing import sendable
from cloner_core.errors import ClonerError, IntegrityError, RefusedError, UnreachableError
from cloner_core.mending import remedy
from cloner_core.messages import DESTRUCTIVE_FROM, Cause, Failure, Stage

_BY_ERRNO = {
    errno.EIO: Cause.DISK_IO,
    errno.EREMOTEIO: Cause.DISK_IO,
    errno.EUCLEAN: Cause.DISK_IO,
    errno.EBADMSG: Cause.DISK_IO,
    errno.ENODEV: Cause.DISK_IO,
    errno.ENXIO: Cause.DISK_IO,
    errno.ENOMEDIUM: Cause.DISK_IO,
    errno.EROFS: Cause.DISK_IO,  # ext4 remounts read-only after an error of the disk
    errno.ENOSPC: Cause.NO_SPACE,
    errno.EDQUOT: Cause.NO_SPACE,
    errno.EBUSY: Cause.DEVICE_BUSY,
    errno.ENOMEM: Cause.MEMORY,
}
_TOOL_STDERR = (
    ("Device or resource busy", Cause.DEVICE_BUSY),
    ("is mounted", Cause.DEVICE_BUSY),
    ("in use", Cause.DEVICE_BUSY),
    ("Input/output error", Cause.DISK_IO),
    ("Read-only file system", Cause.DISK_IO),
    ("No space left", Cause.NO_SPACE),
    ("Cannot allocate memory", Cause.MEMORY),
)
_BY_CLASS: tuple[tuple[type[BaseException], Cause], ...] = (
    (UnreachableError, Cause.NETWORK),
    (RefusedError, Cause.REFUSED),
    (MemoryError, Cause.MEMORY),
)
_BY_STAGE = {Stage.IDENTITY: Cause.IDENTITY, Stage.CHECK: Cause.NOT_BOOTABLE, Stage.NVRAM: Cause.NVRAM}


class StageError(ClonerError):
    """A stage stops the deploy and knows why. Survives the pipe from a worker process, as do its subclasses."""

    def __init__(self, cause: Cause, message: str, *, hint: str = "") -> None:
        self.cause = cause
        super().__init__(message, hint=hint or remedy(cause).do)

    def __reduce__(self) -> tuple[Any, ...]:
        return _stage_error, (type(self), self.cause, self.message, self.hint)


def _stage_error(kind: type[StageError], cause: Cause, message: str, hint: str) -> StageError:
    """Make one anew without asking for the arguments its own class takes."""
    error = StageError.__new__(kind)
    StageError.__init__(error, cause, message, hint=hint)
    return error


class AbortError(StageError):
    """The server ordered the attempt to end."""

    def __init__(self, reason: str) -> None:
        super().__init__(Cause.ABORTED, reason or "the server ordered an abort")


def is_destructive(stage: Stage) -> bool:
    """Say whether a failure in `stage` may have cost the old content of a disk."""
    order = list(Stage)
    return order.index(stage) >= order.index(DESTRUCTIVE_FROM)


def failure_of(error: BaseException, stage: Stage, *, is_destroyed: bool) -> Failure:
    """Name any exception as a failure of `stage`; never raises, so the server always hears something."""
    cause = cause_of(error, stage)
    message = error.message if isinstance(error, ClonerError) else str(error) or type(error).__name__
    if cause is Cause.INTERNAL:
        message = f"{type(error).__name__}: {message}"
    hint = _own_hint(error, cause) or remedy(cause, stage).do
    # A path in a message may be no UTF-8; a failure that cannot be sent would be none.
    told = sendable(message), sendable(hint)
    return Failure(stage=stage, cause=cause, message=told[0], hint=told[1], is_destroyed=is_destroyed)


def _own_hint(error: BaseException, cause: Cause) -> str:
    """Return what the finder knows better than the rule book; "" when it only repeats it, or less."""
    if not isinstance(error, ClonerError) or error.hint == remedy(cause).do:
        return ""
    is_general = isinstance(error, ToolError) and error.hint == LOOK_AT_LOG and cause is not Cause.TOOL
    return "" if is_general else error.hint


def is_of_disk(error: OSError) -> bool:
    """Tell whether the disk, or the way to it, has failed."""
    return _BY_ERRNO.get(error.errno or 0) is Cause.DISK_IO


def cause_of(error: BaseException, stage: Stage) -> Cause:
    """Choose the cause of an exception: what the raiser named, else the system's error number, else the stage."""
    named = getattr(error, "cause", None)
    if isinstance(named, Cause):
        return named
    if isinstance(error, ToolError):
        return next((cause for text, cause in _TOOL_STDERR if text in error.stderr_tail), Cause.TOOL)
    if isinstance(error, IntegrityError):
        return Cause.READBACK if stage is Stage.READBACK else Cause.CORRUPT
    found = next((cause for kind, cause in _BY_CLASS if isinstance(error, kind)), None) or _system_cause(error)
    if found is not None:
        return found
    return _BY_STAGE.get(stage, Cause.INTERNAL) if isinstance(error, (OSError, ClonerError)) else Cause.INTERNAL


def _system_cause(error: BaseException) -> Cause | None:
    """Return the cause behind an error number, the error's own or that of what it was raised from."""
    # Errors of a restore come through a pipe, which loses __cause__: they carry the number themselves.
    numbers = (getattr(system, "errno", None) for system in (error, error.__cause__))
    return next((_BY_ERRNO[number] for number in numbers if number in _BY_ERRNO), None)
