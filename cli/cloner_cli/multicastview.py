"""Multicast sessions as text. Pure: takes what the server said, prints nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cloner_cli.checking import fold_nodes
from cloner_cli.progress import EVERY_S, standing
from cloner_cli.text import columns, duration, fields, moment, printable
from cloner_core.admin.sessions import (
    SeatState,
    SeatView,
    SessionState,
    SessionView,
    WaitingView,
    format_group,
)
from cloner_core.admin.tasks import TaskState, TaskView
from cloner_core.sizes import format_bytes, format_rate

if TYPE_CHECKING:
    from rich.console import Group

_WORST_FIRST = (
    SeatState.OUT,
    SeatState.HTTPS,
    SeatState.AWAITED,
    SeatState.SEATED,
    SeatState.HEARING,
    SeatState.WRITTEN,
)


def waiting_table(views: Sequence[WaitingView]) -> str:
    """Return a line for each node that waits, or is on its way to a session."""
    titles = ("NODE", "WAITS SINCE", "LAST SEEN", "IMAGE", "LINK", "MEMORY", "DISKS", "SESSION", "NOTE")
    rows = [
        (
            view.node,
            moment(view.since_s),
            moment(view.seen_s),
            view.image,
            format_rate(view.link_mbps * 1e6) if view.link_mbps else "",
            format_bytes(view.memory_bytes) if view.memory_bytes else "",
            ", ".join(view.disks),
            view.session,
            view.note,
        )
        for view in views
    ]
    return columns(titles, rows)


def sessions_table(views: Sequence[SessionView]) -> str:
    """Return a line for each session."""
    titles = ("SESSION", "STATE", "IMAGE", "NODES", "SEATS", "RATE", "RELAY", "CREATED", "WHY")
    rows = [
        (
            view.id,
            view.state,
            _image(view),
            fold_nodes([seat.node for seat in view.seats]),
            seat_counts(view),
            format_rate(view.rate_bps),
            view.relay,
            moment(view.created_s),
            view.why,
        )
        for view in views
    ]
    return columns(titles, rows)


def session_text(view: SessionView) -> str:
    """Return one session: what it is, how far it is, and a line for each node."""
    where = format_group(view.group, view.port)
    shown: list[tuple[str, object]] = [
        ("session", view.id),
        ("state", f"{view.state}: {view.why}" if view.why else view.state),
        ("image", _image(view)),
        ("created", f"{moment(view.created_s)} by {view.author}"),
        ("begins", begins(view)),
        ("sending", f"{moment(view.started_s)} to {moment(view.ended_s)}"),
        ("relay", f"{view.relay}: {view.fetching}" if view.fetching else view.relay or "none, the server sends"),
        ("link", f"{view.interface or '-'}, {where}, hops {view.hops}, priority {view.priority}"),
        ("rate", f"{format_rate(view.sending_bps)} of {format_rate(view.rate_bps)}"),
        ("parcels", f"{view.parcels}, {format_bytes(view.data_bytes)}"),
        ("sent", _sent(view)),
        ("epochs", view.epochs),
        ("nodes", seat_counts(view)),
    ]
    return f"{fields(shown)}\n\n{_seats_table(view)}"


def begins(view: SessionView) -> str:
    """Return when sending begins, in words."""
    if view.start_now:
        return "with the first node that hears"
    count = len(view.seats)
    enough = "every node hears" if view.least in (0, count) else f"{view.least} of {count} nodes hear"
    return f"when {enough}, or {duration(view.wait_s)} after the first seat"


def seat_counts(view: SessionView) -> str:
    """Return "2 https, 38 hearing", the worst first."""
    counts = Counter(seat.state for seat in view.seats)
    return ", ".join(f"{counts[state]} {state}" for state in _WORST_FIRST if counts[state])


def session_line(view: SessionView) -> str:
    """Return where a session stands, in one line."""
    parts = [f"session {view.id}", f"{view.state}, {view.why}" if view.why else str(view.state), seat_counts(view)]
    if view.fetching:
        parts.append(view.fetching)
    if view.state is SessionState.SENDING:
        parts += [format_rate(view.sending_bps), f"{repair_share(view):.1%} repair", f"{view.reports} reports"]
    return printable("  ".join(part for part in parts if part))


def seat_line(seat: SeatView, parcels: int) -> str:
    """Return where a node of a session stands, in one line."""
    return printable("  ".join(part for part in (seat.node, seat.state, amount(seat, parcels), seat.why) if part))


def repair_share(view: SessionView) -> float:
    """Return which part of the datagrams with content mends what was lost, 0 to 1."""
    return view.combinations / max(1, view.blocks + view.combinations)


def amount(seat: SeatView, parcels: int) -> str:
    """Return "120 of 812 parcels, 0.4% lost"; "" before anything has come."""
    if not seat.parcels:
        return ""
    return f"{seat.parcels} of {parcels} parcels" + (f", {seat.loss:.1%} lost" if seat.loss else "")


def worst_first(seats: Sequence[SeatView]) -> list[SeatView]:
    """Return seats, those that want a person's look first, by node."""
    return sorted(seats, key=lambda seat: (_WORST_FIRST.index(seat.state), seat.node))


def live_view(view: SessionView, tasks: Sequence[TaskView]) -> Group:
    """Return what a terminal shows of a session that goes on: the session, then a line a node."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    known = {task.id: task for task in tasks}
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for seat in worst_first(view.seats):
        share = seat.parcels / view.parcels if view.parcels else 0.0
        bar = ProgressBar(total=1.0, completed=min(1.0, share), width=24)
        table.add_row(Text(seat.node), Text(seat.state), bar, *map(Text, _beside(seat, view, known)))
    return Group(Text(session_line(view)), table)


@dataclass
class SessionTicker:
    """Chooses what to say of a session where lines cannot be redrawn: each change of state, and every ten seconds."""

    _said: dict[str, str] = field(default_factory=dict)
    _text: str = ""
    _at_s: float = 0.0

    def lines(self, view: SessionView, now_s: float) -> list[str]:
        """Return the lines due at `now_s`."""
        due = []
        text = session_line(view)
        is_stale = now_s - self._at_s >= EVERY_S and text != self._text
        if self._said.get("") != view.state or is_stale:
            self._said[""], self._text, self._at_s = view.state, text, now_s
            due.append(text)
        for seat in view.seats:
            if self._said.get(seat.node) != seat.state:
                self._said[seat.node] = seat.state
                due.append(seat_line(seat, view.parcels))
        return due


def _beside(seat: SeatView, view: SessionView, tasks: Mapping[str, TaskView]) -> tuple[str, str]:
    """Return what stands beside a node's bar: how much it has, and why it is where it is, or what its task does."""
    task = tasks.get(seat.task)
    told = seat.why
    if task is not None and (not told or task.state is not TaskState.RUNNING):
        told = standing(task)
    return amount(seat, view.parcels), printable(told)


def _image(view: SessionView) -> str:
    return f"{view.image}:{view.number}"


def _sent(view: SessionView) -> str:
    if not view.sent_bytes:
        return ""
    return (
        f"{format_bytes(view.sent_bytes)}: {view.blocks} blocks and {view.combinations} combinations"
        f" ({repair_share(view):.1%} repair); {view.reports} reports came"
    )


def _seats_table(view: SessionView) -> str:
    rows = [
        (seat.node, seat.state, f"{seat.parcels} of {view.parcels}", f"{seat.loss:.1%}", seat.task, seat.why)
        for seat in worst_first(view.seats)
    ]
    return columns(("NODE", "STATE", "PARCELS", "LOSS", "TASK", "WHY"), rows)
