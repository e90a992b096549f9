"""What can go wrong in the lab itself, told apart from what the tested programs do wrong."""

from __future__ import annotations

from cloner_core.errors import ClonerError, ExitStatus


class LabError(ClonerError):
    """The lab could not do what was asked: a program missing, a machine that ended, a disk it cannot read."""


class MarkerMissing(LabError):
    """A machine did not say what was waited for; the message ends with the last lines it said."""

    exit_status = ExitStatus.TIMEOUT
