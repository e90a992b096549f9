"""Who an agent is: the credential of its attempt, and the proof made with the attempt's key."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from sqlalchemy import Connection

from cloner_core.decoding import UNREADABLE
from cloner_core.errors import InvalidError
from cloner_server.api.faults import AnyRequest
from cloner_server.tasks import attempts
from cloner_server.tasks.attempts import Bearer, CredentialError, Shown

T = TypeVar("T")


def bearer_of(connection: Connection, request: AnyRequest, body: bytes, attempt_id: str) -> Bearer:
    """Return the attempt that sent `request`; raises CredentialError unless it shows credential and proof."""
    credential = credential_of(request)
    bearer = attempts.authenticate(connection, credential)
    if bearer.attempt.id != attempt_id:
        raise CredentialError("the credential is of another attempt")
    path = request.scope["path"]
    proof = request.headers.get("cloner-proof", "")
    attempts.check_proof(bearer, Shown(request.method, path, body, credential, proof))
    return bearer


def credential_of(request: AnyRequest) -> str:
    """Return the credential that a request carries; raises CredentialError when it carries none."""
    return shown_credential(request.headers.get("authorization", ""))


def shown_credential(header: str) -> str:
    """Return the credential in a header Authorization; raises CredentialError when there is none."""
    scheme, _, credential = header.partition(" ")
    if scheme != "Bearer" or not credential:
        raise CredentialError("the request carries no credential")
    return credential


def author_of(bearer: Bearer) -> str:
    """Return who acts, for the audit."""
    return f"agent {bearer.attempt.id}"


def decode_body(body: bytes | str, kind: type[T]) -> T:
    """Return the message in a body; raises InvalidError for anything else."""
    try:
        return msgspec.json.decode(body, type=kind)
    except UNREADABLE as fault:
        raise InvalidError(f"the body is not a {kind.__name__.strip('_')}: {fault}") from fault
