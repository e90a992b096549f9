"""Which version the attempt behind a request may fetch parts of."""

from __future__ import annotations

from functools import partial

from cloner_core.errors import NotFoundError
from cloner_core.messages import Task
from cloner_server.api.credentials import credential_of, decode_body
from cloner_server.api.faults import AnyRequest
from cloner_server.catalog import Version
from cloner_server.core import Core
from cloner_server.tasks import attempts


def task_version(core: Core, request: AnyRequest, digest: str = "") -> Version:
    """Return the version the bearer's task restores; `digest`, when given, must be its."""
    with core.database.read() as connection:
        bearer = attempts.authenticate(connection, credential_of(request))
    attempts.require_active(bearer)
    attempts.require_deploy(bearer)
    told = decode_body(bearer.attempt.told, Task).version
    if digest and digest != told.digest:
        raise NotFoundError("the task restores another version")
    return core.catalog.find(told)


async def granted_version(core: Core, request: AnyRequest, digest: str) -> Version:
    """Return what `task_version` does; within a second of the last time without a look at the database."""
    return await core.grants.version(credential_of(request), digest, partial(task_version, core, request, digest))
