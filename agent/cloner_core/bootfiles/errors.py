"""The error of boot files: an image that has nothing to boot with."""

from __future__ import annotations

from cloner_core.errors import ClonerError


class NotBootableError(ClonerError):
    """The image lacks a loader or a kernel; the clone could not boot from its disk."""
