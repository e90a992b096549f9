"""Errors as HTTP answers: every refusal is a `Fault`, with the status of its class."""

from __future__ import annotations

import logging
from typing import Any

from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException

from cloner_core.bootfiles import NotBootableError
from cloner_core.errors import (
    ClonerError,
    ConflictError,
    ExitStatus,
    IntegrityError,
    InvalidError,
    NotFoundError,
    RefusedError,
    UnreachableError,
)
from cloner_core.messages import Fault
from cloner_server.tasks.attempts import CredentialError
from cloner_server.tasks.claims import UnknownClaimError

log = logging.getLogger(__name__)

AnyRequest = Request[Any, Any, Any]

_STATUS: tuple[tuple[type[ClonerError], int], ...] = (
    (CredentialError, 401),
    (UnknownClaimError, 401),
    (InvalidError, 400),
    (NotFoundError, 404),
    (ConflictError, 409),
    (RefusedError, 409),
    (IntegrityError, 409),
    (UnreachableError, 503),
    (NotBootableError, 422),
)


def http_status(error: ClonerError) -> int:
    """Return the HTTP status of an error's class."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def answer_error(request: AnyRequest, error: ClonerError) -> Response[Fault]:
    """Answer an error of ours, and say in the log who was refused what."""
    faults = error.faults if isinstance(error, InvalidError) else ()
    headline = error.message.split("\n  - ")[0] if faults else error.message
    fault = Fault(error=headline, hint=error.hint, faults=faults, status=int(error.exit_status))
    status = http_status(error)
    who = request.client.host if request.client else "-"
    log.warning("%s %s %s: %d %s", who, request.method, request.scope["path"], status, headline)
    headers = {"Retry-After": "2"} if status == 503 else {}
    return Response(fault, status_code=status, headers=headers, media_type=MediaType.JSON)


def answer_http_error(_request: AnyRequest, error: HTTPException) -> Response[Fault]:
    """Answer what the framework refused: unknown path, wrong method, a body that does not decode."""
    extra = error.extra if isinstance(error.extra, list) else []
    faults = tuple(f"{item.get('key', '')}: {item.get('message', '')}" for item in extra if isinstance(item, dict))
    fault = Fault(error=error.detail, faults=faults, status=int(ExitStatus.USAGE))
    return Response(fault, status_code=error.status_code, headers=error.headers, media_type=MediaType.JSON)


def answer_bug(request: AnyRequest, error: Exception) -> Response[Fault]:
    """Answer what nobody foresaw; the traceback is for the log, not for the caller."""
    log.error("%s %s: %s", request.method, request.scope["path"], type(error).__name__, exc_info=error)
    fault = Fault(error="the server failed in a way nobody foresaw; its log says more", status=int(ExitStatus.FAILED))
    return Response(fault, status_code=500, media_type=MediaType.JSON)
