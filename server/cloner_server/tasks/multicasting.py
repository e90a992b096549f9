"""Arming a multicast session: every objection at once, then all of it or nothing; stopping one, and beginning now."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection

from cloner_core.admin.deploying import DeployRequest, Intent
from cloner_core.admin.nodes import NodeView
from cloner_core.admin.sessions import SeatState, SessionIntent, SessionRequest, SessionState
from cloner_core.errors import ClonerError, InvalidError, RefusedError
from cloner_core.image.version import check_image_name
from cloner_core.sizes import format_rate
from cloner_server.multicast.links import Link, pick_group
from cloner_server.state import events, images, nodes, sessions, waiting
from cloner_server.state.database import Act
from cloner_server.state.sessions import AnyRow
from cloner_server.tasks import arming
from cloner_server.tasks.rules import Rules

_HOPS_MOST = 255
_LEAST_BPS = 1e6  # slower than that a poll alone takes its time


@dataclass(frozen=True, slots=True)
class Wire:
    """What sessions are sent over, as it is now."""

    link: Link
    groups: str  # a network; each session has one group of it
    first_port: int
    relay: str = ""  # whose it is; "" our own

    @property
    def name(self) -> str:
        """What it is called to a person."""
        return f"{self.link.interface} of relay {self.relay}" if self.relay else self.link.interface


def granted_bps(asked_bps: float, link: Link) -> float:
    """Return what a session may send on a link as it is now; `asked_bps` is 0 for what the link gives.

    A rate that was asked for may be above what sessions share: then it is sent alone.
    """
    return min(asked_bps, link.speed_bps) if asked_bps else link.budget_bps


def intend_session(connection: Connection, request: SessionRequest, rules: Rules, wire: Wire) -> SessionIntent:
    """Return what `request` would do; changes nothing.

    Raises NotFoundError, RefusedError or InvalidError naming every objection found.
    """
    _check_numbers(request)
    objections = _objections(connection, request, rules, wire)
    intents: list[Intent] = []
    asked = DeployRequest(
        nodes=request.nodes, image=request.image, version=request.version, layout=request.layout, limit=request.limit
    )
    try:
        intents = arming.intend(connection, asked, rules)
    except ClonerError as fault:
        objections.append(fault)
    if objections:
        raise arming.all_of(objections)
    taken = {(row.group, row.port) for row in sessions.live(connection)}
    group, port = pick_group(wire.groups, wire.first_port, taken)
    notes = list(wire.link.notes)
    rate_bps = granted_bps(request.rate_bps, wire.link)
    if rate_bps > wire.link.budget_bps:
        notes.append(
            f"{format_rate(rate_bps)} is above the {format_rate(wire.link.budget_bps)} sessions share: it is sent alone"
        )
    return SessionIntent(intents=tuple(intents), rate_bps=rate_bps, group=group, port=port, notes=tuple(notes))


def arm_session(
    connection: Connection, act: Act, request: SessionRequest, intent: SessionIntent, *, rules: Rules, wire: Wire
) -> SessionIntent:
    """Queue the session and a task for each of its nodes; returns the intent with its id and theirs."""
    first = intent.intents[0]
    version = images.get_version(connection, first.image, first.version)
    row = sessions.add(
        connection,
        act,
        {
            "image": first.image,
            "number": first.version,
            "digest": version.digest,
            "least": request.least,
            "wait_s": request.wait_s,
            "is_start_now": request.start_now,
            "priority": request.priority,
            "asked_bps": request.rate_bps,
            "rate_bps": intent.rate_bps,
            "hops": request.hops,
            "relay": wire.relay,
            "interface": wire.link.interface,
            "group": intent.group,
            "port": intent.port,
        },
    )
    armed = arming.arm(connection, act, list(intent.intents), rules, session=row.id)
    for one in armed:
        sessions.add_seat(connection, row.id, one.node, int(one.task_id))
    return msgspec.structs.replace(intent, intents=tuple(armed), id=str(row.id))


def stop_session(connection: Connection, act: Act, session_id: str) -> AnyRow:
    """End a session; its nodes go on over HTTPS. Raises RefusedError for one that has ended."""
    row = _live(connection, session_id)
    return end_session(connection, act, row, SessionState.STOPPED, f"stopped by {act.author}")


def begin_session(connection: Connection, act: Act, session_id: str) -> AnyRow:
    """Have a session begin with whoever hears, as soon as one does. Raises RefusedError for one that has ended."""
    row = _live(connection, session_id)
    if SessionState(row.state) is SessionState.SENDING:
        raise RefusedError(f"session {row.id} is sending already", hint=f"cloner multicast-show {row.id}")
    events.record(connection, act, f"session/{row.id}", "begin asked for")
    return sessions.change(connection, row.id, is_start_now=True)


def end_session(
    connection: Connection, act: Act, row: AnyRow, state: SessionState, why: str, *, alarm: bool = False
) -> AnyRow:
    """Bring a session to its end: whoever is still there for it goes on over HTTPS."""
    ended = sessions.move(connection, act, row, state, why=why, alarm=alarm, ended_s=act.now_s)
    for seat in sessions.seats(connection, row.id):
        if SeatState(seat.state) in sessions.UNSETTLED:
            sessions.settle_seat(connection, act, seat, SeatState.HTTPS, why or "the session ended before it came")
    return ended


def rejoin(connection: Connection, act: Act, task: AnyRow) -> int:
    """Return the session that a task which begins anew belongs to: its own while that is live, else 0."""
    if not task.session:
        return 0
    row = sessions.get(connection, task.session)
    if not sessions.is_live(row):
        return 0
    seat = sessions.seat_of(connection, row.id, task.node)
    if seat.task != task.id:
        return 0
    fresh = {"state": SeatState.AWAITED.value, "why": "", "parcels": 0, "loss": 0.0, "attempt": "", "seated_s": None}
    sessions.change_seat(connection, seat, **fresh)
    return int(row.id)


def _live(connection: Connection, session_id: str) -> AnyRow:
    row = sessions.get(connection, session_id)
    if not sessions.is_live(row):
        raise RefusedError(f"session {row.id} is {row.state}", hint="cloner multicast-list shows those that are not")
    return row


def _check_numbers(request: SessionRequest) -> None:
    faults = []
    if request.rate_bps and not _LEAST_BPS <= request.rate_bps < math.inf:
        faults.append(f"rate_bps: {request.rate_bps:g}, wanted at least {format_rate(_LEAST_BPS)}")
    if not (math.isfinite(request.wait_s) and request.wait_s >= 0):
        faults.append(f"wait_s: {request.wait_s} is no time to wait")
    if not 1 <= request.hops <= _HOPS_MOST:
        faults.append(f"hops: {request.hops}, wanted 1 to {_HOPS_MOST}")
    if not 0 <= request.least <= len(request.nodes):
        faults.append(f"least: {request.least} of {len(request.nodes)} nodes cannot be waited for")
    if abs(request.priority) >= 1 << 31:
        faults.append(f"priority: {request.priority} is beyond 32 bits")
    if faults:
        raise InvalidError("a session cannot be so", faults=faults)
    check_image_name(request.image)  # "" would be each node's own: a session has one


def _objections(connection: Connection, request: SessionRequest, rules: Rules, wire: Wire) -> list[ClonerError]:
    """Return what is against the session, beside what would be against deploys of the same nodes."""
    found: list[ClonerError] = []
    link = wire.link
    twice = [name for name, count in Counter(request.nodes).items() if count > 1]
    if twice:
        found.append(RefusedError(f"named twice: {', '.join(twice)}", hint="name each node once"))
    if not rules.has_agent:
        found.append(RefusedError("this server offers no agent, so no node comes", hint="cloner serve --installer"))
    if request.rate_bps > link.speed_bps:
        found.append(
            RefusedError(
                f"{format_rate(request.rate_bps)} is above the {format_rate(link.speed_bps)} of {wire.name}",
                hint=f"--rate, at most that; without it a session gets {format_rate(link.budget_bps)}",
            )
        )
    try:
        link.source(wire.groups.partition("/")[0])
    except RefusedError as fault:
        found.append(fault)
    known = {node.name: node for node in nodes.list_nodes(connection)}
    for name in dict.fromkeys(request.nodes):
        if name in known:
            found += _objections_of(connection, known[name], request, wire)
    return found


def _objections_of(
    connection: Connection, node: NodeView, request: SessionRequest, wire: Wire
) -> Sequence[ClonerError]:
    found: list[ClonerError] = []
    if (other := sessions.live_of_node(connection, node.name)) is not None:
        text = f"{node.name} is in session {other.id}, which is {other.state}"
        found.append(RefusedError(text, hint=f"wait for it, or: cloner multicast-stop {other.id}"))
    if node.image and node.image != request.image and not request.override_image:
        text = f"{node.name} is of the image {node.image}, not {request.image}"
        found.append(RefusedError(text, hint="--override-image gives it the other all the same"))
    if request.hops == 1 and (beyond := _beyond_router(connection, node, wire)):
        hint = "--hops 2 lets it through one router, which must route multicast; or deploy it over HTTPS"
        found.append(RefusedError(f"{node.name} {beyond}, and multicast ends at the router", hint=hint))
    return found


def _beyond_router(connection: Connection, node: NodeView, wire: Wire) -> str:
    """Return what says that a router is between us and the node; "" when nothing does."""
    if node.relay:
        return "" if wire.link.reaches(node.relay) else f"is behind the DHCP relay {node.relay}"
    row = waiting.of_node(connection, node.name)
    if row is None or not row.address or wire.link.reaches(row.address):
        return ""
    return f"has the address {row.address}, which is not in {wire.link.address.network} of {wire.name}"
