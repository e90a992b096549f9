"""What can go wrong on the target's side of a restore."""

from __future__ import annotations

import errno
import os

from cloner_core.errors import ClonerError


class RestoreError(ClonerError):
    """The target could not be written or read: a failing disk, a full or unfit filesystem."""

    def __init__(self, message: str, *, hint: str = "", errno: int | None = None) -> None:
        """Take the system's error number, None where no call of it failed; it survives the pipe of a worker."""
        super().__init__(message, hint=hint)
        self.errno = errno


_HINTS = {
    errno.EIO: "the disk reports an error: look at its SMART values and the kernel's log",
    errno.ENOSPC: "the filesystem of the layout is too small for this image",
    errno.EDQUOT: "the filesystem of the layout is too small for this image",
    errno.EOPNOTSUPP: "choose a filesystem in the layout that keeps everything the image has",
    errno.EROFS: "the filesystem turned read-only: look at the kernel's log",
}


def failed(what: str, path: bytes, error: OSError) -> RestoreError:
    """Return the error to raise when `what` failed on `path` of the target."""
    code = errno.errorcode.get(error.errno or 0, "")
    return RestoreError(
        f"cannot {what} /{os.fsdecode(path)}: {error.strerror} {code}".rstrip(),
        hint=_HINTS.get(error.errno or 0, ""),
        errno=error.errno,
    )
