"""Multicast over the API of admins: who waits, and the sessions."""

from __future__ import annotations

from typing import Any

from litestar import get, post
from litestar.params import FromPath, FromQuery, JSONBody

from cloner_core.admin.sessions import SessionIntent, SessionRequest, SessionView, WaitingView
from cloner_core.errors import RefusedError
from cloner_server import vault
from cloner_server.api.callers import CoreDependency, who
from cloner_server.api.faults import AnyRequest
from cloner_server.core import Core
from cloner_server.sessiondesk import SessionDesk
from cloner_server.state import sessions
from cloner_server.tasks import arming, multicasting, waiting

_OK = 200
_SHOWN_BYTES = 256 << 20  # a request tells every disk that was shown, of thousands of nodes


@get("/multicast/waiting", sync_to_thread=True)
def waiting_list(core: CoreDependency) -> list[WaitingView]:
    """List the nodes that wait for a session, and those that are on their way to one."""
    with core.database.read() as connection:
        return waiting.list_waiting(connection, core.clock())


@get("/multicast/sessions", sync_to_thread=True)
def session_list(core: CoreDependency, all: FromQuery[bool] = False) -> list[SessionView]:  # noqa: A002 — its name in the query
    """List the sessions that are queued or run, or all there were, the newest first."""
    with core.database.read() as connection:
        rows = sessions.list_all(connection, with_ended=all)
        return [_desk(core).view(connection, row) for row in rows]


@post("/multicast/sessions", sync_to_thread=True, request_max_body_size=_SHOWN_BYTES, status_code=_OK)
def session_arm(core: CoreDependency, request: AnyRequest, data: JSONBody[SessionRequest]) -> SessionIntent:
    """Arm a session with a task on each node: all of it, or nothing. Those who wait are called."""
    act, wire = who(core, request), _desk(core).outlet(data.relay).wire()
    with core.database.read() as connection:
        intent = multicasting.intend_session(connection, data, core.rules, wire)
    if data.dry_run:
        return intent
    arming.require_shown(intent.intents, data.shown)  # before the vault makes anything
    vault.ensure_identities(core.database, act, [one.node for one in intent.intents], core.site.vault_key)
    with core.database.write() as connection:
        intent = multicasting.intend_session(connection, data, core.rules, wire)
        arming.require_shown(intent.intents, data.shown)
        armed = multicasting.arm_session(connection, act, data, intent, rules=core.rules, wire=wire)
    core.calls.call(one.node for one in armed.intents)
    if core.relays is not None:
        core.relays.wake(data.relay)  # it fetches while nodes are on their way
    return armed


@get("/multicast/sessions/{session_id:str}", sync_to_thread=True)
def session_show(core: CoreDependency, session_id: FromPath[str]) -> SessionView:
    """Show a session."""
    with core.database.read() as connection:
        return _desk(core).view(connection, sessions.get(connection, session_id))


@post("/multicast/sessions/{session_id:str}/stop", sync_to_thread=True, status_code=_OK)
def session_stop(
    core: CoreDependency, request: AnyRequest, session_id: FromPath[str], dry_run: FromQuery[bool] = False
) -> SessionView:
    """End a session; its nodes go on over HTTPS."""
    with core.database.trial(dry_run) as connection:
        row = multicasting.stop_session(connection, who(core, request), session_id)
        return _desk(core).view(connection, row)


@post("/multicast/sessions/{session_id:str}/start", sync_to_thread=True, status_code=_OK)
def session_start(
    core: CoreDependency, request: AnyRequest, session_id: FromPath[str], dry_run: FromQuery[bool] = False
) -> SessionView:
    """Have a session begin with whoever hears."""
    with core.database.trial(dry_run) as connection:
        row = multicasting.begin_session(connection, who(core, request), session_id)
        return _desk(core).view(connection, row)


def multicast_handlers() -> list[Any]:
    """Return the handlers of multicast."""
    return [waiting_list, session_list, session_arm, session_show, session_stop, session_start]


def _desk(core: Core) -> SessionDesk:
    if core.sessions is None:
        raise RefusedError("this server sends no multicast", hint="cloner serve --interface NAME")
    return core.sessions
