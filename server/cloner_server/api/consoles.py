"""Consoles over the API of admins: how one is reached, and which password it takes."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import get, post
from litestar.params import FromPath, JSONBody
from sqlalchemy import Connection

from cloner_core.admin.consoles import ConsoleView, PasswordRequest, PasswordView
from cloner_core.admin.nodes import NodeView
from cloner_core.errors import InvalidError, RefusedError
from cloner_core.identity import ssh_fingerprint
from cloner_core.messages import ConsoleReport
from cloner_core.passwords import DEFAULT_PASSWORD, PORT, USER, is_password
from cloner_server.api.callers import CoreDependency, who
from cloner_server.api.faults import AnyRequest
from cloner_server.consoles import host_key_line
from cloner_server.core import Core
from cloner_server.state import consoles, groups, nodes
from cloner_server.state import tasks as rows

_OK = 200
_SHOWING = ("live", "holding", "released")  # states of attempts whose agent runs


@get("/nodes/{name:str}/console", sync_to_thread=True)
def console_show(core: CoreDependency, name: FromPath[str]) -> ConsoleView:
    """Show how the console of a node is reached now."""
    with core.database.read() as connection:
        return _console(connection, core, nodes.get_node(connection, name))


@get("/console/passwords", sync_to_thread=True)
def password_list(core: CoreDependency) -> list[PasswordView]:
    """List where passwords of consoles are set."""
    with core.database.read() as connection:
        return consoles.list_passwords(connection)


@post("/console/passwords", sync_to_thread=True, status_code=_OK)
def password_set(core: CoreDependency, request: AnyRequest, data: JSONBody[PasswordRequest]) -> list[PasswordView]:
    """Set or take away a password: for all that are named, or for none."""
    if (data.scope == "site") == bool(data.names):
        raise InvalidError("names are for groups and nodes, which want one; the site has none")
    if data.password is not None and is_password(DEFAULT_PASSWORD, data.password):
        raise InvalidError("this is the password everybody knows", hint="choose another")
    with core.database.trial(data.dry_run) as connection:
        if data.scope == "node":
            nodes.get_nodes(connection, data.names)
        for name in data.names if data.scope == "group" else ():
            groups.get_group(connection, name)
        consoles.set_password(connection, who(core, request), data.scope, data.names or ("",), data.password)
        return consoles.list_passwords(connection)


def console_handlers() -> list[Any]:
    """Return the handlers of consoles."""
    return [console_show, password_list, password_set]


def _console(connection: Connection, core: Core, node: NodeView) -> ConsoleView:
    if not core.rules.console_key:
        raise RefusedError("this server has consoles switched off", hint="console = true in server.toml")
    newest = rows.newest_task_id(connection, node.name)
    attempt = None if newest is None else rows.last_attempt(connection, newest)
    if newest is None or attempt is None or attempt.state not in _SHOWING:
        raise RefusedError(
            f"{node.name} runs no agent: there is a console while it is cloned, and while it holds after a failure",
            hint=f"cloner task list --node {node.name}; how it went: cloner task log ID",
        )
    if not attempt.address:
        raise RefusedError(f"the address of {node.name} is not known", hint="it comes with the agent's next beat")
    report = msgspec.json.decode(attempt.console, type=ConsoleReport) if attempt.console else ConsoleReport()
    line = host_key_line(core.rules.console_key, node.name)
    return ConsoleView(
        node=node.name,
        task=str(newest),
        attempt=attempt.id,
        address=attempt.address,
        port=PORT,
        user=USER,
        host_key=line,
        fingerprint=ssh_fingerprint(line),
        password=node.console_password,
        is_open=report.is_open,
        beat_s=attempt.beat_s,
    )
