"""Errors as HTTP answers: every refusal is a `Fault`, with the status of its class.

A full disk is 507 and a database held by somebody else 503: agents and the clone's call ask again, nothing is lost.
"""

from __future__ import annotations

import errno
import logging
import sqlite3
from typing import Any

from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException
from sqlalchemy.exc import DBAPIError

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
from cloner_server.state.database import DatabaseBusyError
from cloner_server.state.tokens import TokenError
from cloner_server.store.protocol import StoreFullError
from cloner_server.tasks.attempts import CredentialError
from cloner_server.tasks.claims import UnknownClaimError

log = logging.getLogger(__name__)

AnyRequest = Request[Any, Any, Any]

_AGAIN_S = "2"
_FREE_HINT = "free space or enlarge the filesystem of the state directory ('cloner store gc'); work goes on by itself"


class DiskFullError(ClonerError):
    """The server's disk has no room for what was asked: 507."""


_STATUS: tuple[tuple[type[ClonerError], int], ...] = (
    (CredentialError, 401),
    (UnknownClaimError, 401),
    (TokenError, 401),
    (InvalidError, 400),
    (NotFoundError, 404),
    (ConflictError, 409),
    (RefusedError, 409),
    (IntegrityError, 409),
    (UnreachableError, 503),
    (NotBootableError, 422),
    (DiskFullError, 507),
    (StoreFullError, 507),
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
    headers = {"Retry-After": _AGAIN_S} if status in (503, 507) else {}
    return Response(fault, status_code=status, headers=headers, media_type=MediaType.JSON)


def answer_http_error(_request: AnyRequest, error: HTTPException) -> Response[Fault]:
    """Answer what the framework refused: unknown path, wrong method, a body that does not decode."""
    extra = error.extra if isinstance(error.extra, list) else []
    faults = tuple(f"{item.get('key', '')}: {item.get('message', '')}" for item in extra if isinstance(item, dict))
    fault = Fault(error=error.detail, faults=faults, status=int(ExitStatus.USAGE))
    return Response(fault, status_code=error.status_code, headers=error.headers, media_type=MediaType.JSON)


def answer_trouble(request: AnyRequest, error: Exception) -> Response[Fault]:
    """Answer what the machine did not allow: a full disk, a database that is held. Anything else is a bug."""
    told = trouble_of(error)
    return answer_bug(request, error) if told is None else answer_error(request, told)


def trouble_of(error: Exception) -> ClonerError | None:
    """Return what to say of an error of the disk or the database; None when it is neither (sqlite.org/rescode.html).

    A number that SQLite has no room for is the asker's fault, wherever in a request it came.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(f"the server's disk is full: {error.filename or error.strerror}", hint=_FREE_HINT)
    if isinstance(error, OverflowError) and "SQLite" in str(error):  # raised by the sqlite3 module itself
        return InvalidError("a number of the request is greater than any that is kept here")
    cause = error.orig if isinstance(error, DBAPIError) else error
    return _database_trouble(cause) if isinstance(cause, sqlite3.Error) else None


def _database_trouble(cause: sqlite3.Error) -> ClonerError | None:
    match getattr(cause, "sqlite_errorcode", 0) & 0xFF:  # the low byte; what is above tells details
        case sqlite3.SQLITE_FULL:
            return DiskFullError("the disk of the server's database is full: nothing can be kept", hint=_FREE_HINT)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            hint = "another program has it open for writing: fuser -v cloner.db; the request may be sent again"
            return DatabaseBusyError("the server's database is held by another program", hint=hint)
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_IOERR | sqlite3.SQLITE_CANTOPEN:
            hint = "look at its filesystem (dmesg, mount); the request may be sent again"
            return DatabaseBusyError(f"the server's database cannot be written: {cause}", hint=hint)
    return None


def answer_bug(request: AnyRequest, error: Exception) -> Response[Fault]:
    """Answer what nobody foresaw; the traceback is for the log, not for the caller."""
    log.error("%s %s: %s", request.method, request.scope["path"], type(error).__name__, exc_info=error)
    fault = Fault(error="the server failed in a way nobody foresaw; its log says more", status=int(ExitStatus.FAILED))
    return Response(fault, status_code=500, media_type=MediaType.JSON)
