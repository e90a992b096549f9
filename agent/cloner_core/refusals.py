"""The error of planning: a node, a layout and a version that do not go together."""

from __future__ import annotations

from cloner_core.errors import RefusedError
from cloner_core.messages import Cause


class PlanError(RefusedError):
    """No plan can be made, and nothing was touched; `cause` is what the failed task will show."""

    def __init__(self, cause: Cause, message: str, *, hint: str = "") -> None:
        self.cause = cause
        super().__init__(message, hint=hint)
