"""Has the server compare a plan with its own, and names what is wrong when they differ."""

from __future__ import annotations

from http import HTTPStatus

from cloner_agent.failures import StageError
from cloner_agent.protocol import Server, ServerFault
from cloner_core.errors import ExitStatus
from cloner_core.messages import Cause, PlanReport


def confirm_plan(server: Server, report: PlanReport) -> None:
    """Return when the server confirmed the plan; raises StageError or ServerFault when it did not."""
    try:
        server.confirm_plan(report)
    except ServerFault as error:
        if error.http_status == HTTPStatus.UNPROCESSABLE_ENTITY:
            raise StageError(Cause.NOT_BOOTABLE, error.message, hint=error.hint) from error
        if error.fault.status == ExitStatus.CONFLICT:
            raise StageError(Cause.PLAN_MISMATCH, error.message, hint=error.hint) from error
        raise
