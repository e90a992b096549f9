"""Rows of multicast sessions and their seats; the rules are in `cloner_server.tasks.multicasting` and `.seating`.

No key of an epoch is ever written: a sender that is gone is followed by another epoch, with keys of its own.
"""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from cloner_core.admin.sessions import SeatState, SeatView, SessionState, SessionView
from cloner_core.errors import NotFoundError
from cloner_server.state import events
from cloner_server.state.database import Act
from cloner_server.state.tables import session_seats, sessions

AnyRow = Row[tuple[Any, ...]]

LIVE = (SessionState.QUEUED, SessionState.GATHERING, SessionState.SENDING)
"""States in which a session may still send."""
SERVED = (SeatState.SEATED, SeatState.HEARING)
"""States in which a node is sent to by multicast."""
UNSETTLED = (SeatState.AWAITED, *SERVED)
"""States of nodes that a session is still there for."""


class Sent(msgspec.Struct, frozen=True):
    """What the sender of the last epoch has sent, in all."""

    wire_bytes: int = 0
    blocks: int = 0
    combinations: int = 0
    reports: int = 0
    begun: int = 0  # parcels of the plan; another epoch goes on with the next


def add(connection: Connection, act: Act, values: dict[str, Any]) -> AnyRow:
    """Insert a queued session."""
    fixed = {"state": SessionState.QUEUED.value, "author": act.author, "created_s": act.now_s}
    row = connection.execute(insert(sessions).values(values | fixed).returning(sessions)).one()
    told = {k: values[k] for k in ("image", "number", "rate_bps", "group", "port", "priority", "hops")}
    told |= {"relay": row.relay} if row.relay else {}
    events.record(connection, act, f"session/{row.id}", "queued", **told)
    return row


def add_seat(connection: Connection, session: int, node: str, task: int) -> None:
    """Have a node of the session awaited."""
    state = SeatState.AWAITED.value
    connection.execute(insert(session_seats).values(session=session, node=node, task=task, state=state))


def get(connection: Connection, session_id: int | str) -> AnyRow:
    """Return the row of a session; raises NotFoundError."""
    row = None
    if str(session_id).isdecimal() and len(str(session_id)) < 19:
        row = connection.execute(select(sessions).where(sessions.c.id == int(session_id))).one_or_none()
    if row is None:
        raise NotFoundError(f"no such session: '{session_id}'", hint="cloner multicast-list --all shows all")
    return row


def live(connection: Connection) -> list[AnyRow]:
    """Return the sessions that may still send, those first that come first: by priority, then the older."""
    is_live = sessions.c.state.in_([state.value for state in LIVE])
    return list(connection.execute(select(sessions).where(is_live).order_by(sessions.c.priority.desc(), sessions.c.id)))


def is_live(row: AnyRow) -> bool:
    """Tell whether a session may still send."""
    return SessionState(row.state) in LIVE


def change(connection: Connection, session: int, **values: object) -> AnyRow:
    """Set columns of a session; return its row."""
    same = sessions.c.id == session
    return connection.execute(update(sessions).where(same).values(values).returning(sessions)).one()


def move(
    connection: Connection,
    act: Act,
    row: AnyRow,
    state: SessionState,
    *,
    why: str = "",
    alarm: bool = False,
    **values: object,
) -> AnyRow:
    """Bring a session into another state, with an event."""
    told: dict[str, Any] = {"state": state.value, "image": f"{row.image}:{row.number}"}
    told |= {"why": why} if why else {}
    events.record(connection, act, f"session/{row.id}", state.value, alarm=alarm, **told)
    return change(connection, row.id, state=state.value, why=why, **values)


def seats(connection: Connection, session: int) -> list[AnyRow]:
    """Return the seats of a session, by node."""
    query = select(session_seats).where(session_seats.c.session == session).order_by(session_seats.c.node)
    return list(connection.execute(query))


def seat_of(connection: Connection, session: int, node: str) -> AnyRow:
    """Return the seat of a node of a session."""
    same = session_seats.c.session == session, session_seats.c.node == node
    return connection.execute(select(session_seats).where(*same)).one()


def change_seat(connection: Connection, seat: AnyRow, **values: object) -> None:
    """Set columns of a seat."""
    same = session_seats.c.session == seat.session, session_seats.c.node == seat.node
    connection.execute(update(session_seats).where(*same).values(values))


def settle_seat(
    connection: Connection, act: Act, seat: AnyRow, state: SeatState, why: str = "", **values: object
) -> None:
    """End what a session does for a node, with an event."""
    change_seat(connection, seat, state=state.value, why=why, **values)
    told = {"node": seat.node, "task": seat.task, "seat": state.value} | ({"why": why} if why else {})
    events.record(connection, act, f"session/{seat.session}", "seat settled", **told)


def live_of_node(connection: Connection, node: str) -> AnyRow | None:
    """Return the session that is still there for `node`; None when none is."""
    query = select(sessions).join(session_seats, session_seats.c.session == sessions.c.id)
    is_live = sessions.c.state.in_([state.value for state in LIVE])
    mine = session_seats.c.node == node, session_seats.c.state.in_([state.value for state in UNSETTLED])
    return connection.execute(query.where(is_live, *mine).limit(1)).one_or_none()


def view(connection: Connection, row: AnyRow, sending_bps: float = 0.0, sent: Sent | None = None) -> SessionView:
    """Return a session as an admin sees it; `sent` is what its sender has told since it was written last."""
    if sent is None:
        sent = Sent() if row.sent is None else msgspec.json.decode(row.sent, type=Sent)
    return SessionView(
        id=str(row.id),
        state=SessionState(row.state),
        image=row.image,
        number=row.number,
        author=row.author,
        created_s=row.created_s,
        started_s=row.started_s,
        ended_s=row.ended_s,
        why=row.why,
        least=row.least,
        wait_s=row.wait_s,
        priority=row.priority,
        rate_bps=row.rate_bps,
        relay=row.relay,
        interface=row.interface,
        group=row.group,
        port=row.port,
        hops=row.hops,
        seats=tuple(_seat_view(seat) for seat in seats(connection, row.id)),
        parcels=row.parcels,
        data_bytes=row.data_bytes,
        epochs=row.epochs,
        sent_bytes=sent.wire_bytes,
        blocks=sent.blocks,
        combinations=sent.combinations,
        reports=sent.reports,
        sending_bps=sending_bps,
        start_now=bool(row.is_start_now),
    )


def list_all(connection: Connection, *, with_ended: bool) -> list[AnyRow]:
    """Return the sessions that are queued or run, or all there were; the newest first."""
    query = select(sessions).order_by(sessions.c.id.desc()).limit(10_000)
    if not with_ended:
        query = query.where(sessions.c.state.in_([state.value for state in LIVE]))
    return list(connection.execute(query))


def _seat_view(seat: AnyRow) -> SeatView:
    return SeatView(
        node=seat.node,
        state=SeatState(seat.state),
        task=str(seat.task),
        why=seat.why,
        parcels=seat.parcels,
        loss=seat.loss,
    )
