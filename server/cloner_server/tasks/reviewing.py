"""A look at the seats of a session: whose task has ended, whom the sender hears, and whom it gave up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from cloner_core.admin.sessions import SeatState, SessionState
from cloner_core.admin.tasks import TaskState
from cloner_core.messages import Failure, Stage
from cloner_core.multicast.session import Leaving
from cloner_server.multicast.orders import ReceiverNews, SenderNews
from cloner_server.state import sessions
from cloner_server.state.database import Act
from cloner_server.state.sessions import SERVED, UNSETTLED, AnyRow
from cloner_server.state.tables import attempts, session_seats, tasks
from cloner_server.tasks.seating import HEAR_S, MUTE, RETURN_S, Told
from cloner_server.tasks.states import CLAIMABLE

_SAYS_SO_S = 5.0  # that a node gets to say itself that it hears nothing
STUCK_S = 300.0
"""For which a node that is heard may write nothing though there is nothing to be sent: a disk that answers no more."""
STUCK_WANTED_S = 60.0
"""The same while another session waits for the link."""
_AT_WORK = (
    select(attempts.c.id).join(session_seats, session_seats.c.task == attempts.c.task).where(attempts.c.state == "live")
)
_STAGES = [stage.value for stage in Stage]
_AFTER_RESTORE = frozenset(_STAGES[_STAGES.index(Stage.RESTORE.value) + 1 :])
_WRITTEN = (TaskState.UNCONFIRMED, TaskState.DONE)
_REASONS = {
    Leaving.SLOW: "slow: the others had to wait for it",
    Leaving.LOSS: "loss: it missed far more than the others",
    Leaving.GREEDY: "greedy: it asked for more repair than any loss explains",
    Leaving.SILENT: "silent: it answered nothing for 5 s",
    Leaving.OVER: "the session ended",
    Leaving.STUCK: "stuck: it wrote nothing though everything was sent",
}


@dataclass(frozen=True, slots=True)
class Review:
    """One look; what the sender is to be told of it gathers in `told`."""

    connection: Connection
    act: Act
    row: AnyRow
    news: SenderNews | None  # None: no sender runs
    age_s: float  # of the epoch
    told: Told = field(default_factory=Told)

    def seats(self) -> list[SeatState]:
        """Settle the seats that are to be; return the states of all."""
        heard = {one.number: one for one in self.news.receivers} if self.news is not None else {}
        query = select(tasks).join(session_seats, session_seats.c.task == tasks.c.id)
        of_seats = query.where(session_seats.c.session == self.row.id)
        by_id = {task.id: task for task in self.connection.execute(of_seats)}
        at_work = set(self.connection.execute(_AT_WORK.where(session_seats.c.session == self.row.id)).scalars())
        found = []
        for seat in sessions.seats(self.connection, self.row.id):
            state = SeatState(seat.state)
            if state in UNSETTLED:
                is_now = seat.receiver and seat.stream == self.row.stream
                said = heard.get(seat.receiver) if is_now else None
                state = self._look(seat, by_id.get(seat.task), said, is_at_work=seat.attempt in at_work)
            found.append(state)
        return found

    def _look(self, seat: AnyRow, task: AnyRow | None, heard: ReceiverNews | None, *, is_at_work: bool) -> SeatState:
        ended = self._ended(seat, task, heard)
        if ended is not None:
            if seat.receiver and seat.stream == self.row.stream:
                self.told.settle.append(seat.receiver)
            return self._settle(seat, *ended, heard)
        if SeatState(seat.state) in SERVED and not is_at_work:  # the machine was restarted: it comes again
            sessions.change_seat(self.connection, seat, state=SeatState.AWAITED.value, seated_s=None)
            return SeatState.AWAITED
        is_heard_of = SeatState(seat.state) in SERVED and self.news is not None
        return self._listen(seat, heard) if is_heard_of else SeatState(seat.state)

    def _ended(self, seat: AnyRow, task: AnyRow | None, heard: ReceiverNews | None) -> tuple[SeatState, str] | None:
        """Return what a seat is because of its task, and why; None when the task goes on with it."""
        if task is None or task.session != seat.session:
            return SeatState.OUT, f"task {seat.task} went on without the session"
        state = TaskState(task.state)
        if state in _WRITTEN:
            if heard is not None and heard.is_done:
                return SeatState.WRITTEN, ""
            return SeatState.HTTPS, f"task {seat.task} is {state.value}, and never told how its data came"
        if state in CLAIMABLE:
            is_past = task.stage in _AFTER_RESTORE and SeatState(seat.state) is SeatState.AWAITED
            return (SeatState.HTTPS, "it restored without a seat") if is_past else None
        failure = msgspec.json.decode(task.failure, type=Failure) if task.failure else None
        return SeatState.OUT, f"task {seat.task} is {state.value}" + (f": {failure.message}" if failure else "")

    def _listen(self, seat: AnyRow, heard: ReceiverNews | None) -> SeatState:
        """Return what a served seat is by what its sender tells."""
        if seat.stream != self.row.stream:
            why = f"it did not come back within {RETURN_S:.0f} s after the sender was started again"
            late = self.age_s >= RETURN_S
            return self._settle(seat, SeatState.HTTPS, why, None) if late else SeatState(seat.state)
        if heard is not None and heard.left is not None and not heard.is_done:
            return self._settle(seat, SeatState.HTTPS, _REASONS[heard.left], heard)
        if heard is not None and heard.heard_s is not None:
            return self._hearing(seat, heard)
        mute_s = self.act.now_s - seat.seated_s
        if heard is not None:
            mute_s = min(mute_s, heard.sought_s or 0.0)  # of a crowd that sits down together some wait for their turn
        if mute_s < HEAR_S + _SAYS_SO_S:
            return SeatState(seat.state)
        self.told.dismiss.append((seat.receiver, Leaving.SILENT))
        return self._settle(seat, SeatState.HTTPS, MUTE, heard)

    def _hearing(self, seat: AnyRow, heard: ReceiverNews) -> SeatState:
        if why := self._stuck(heard):
            if heard.is_done:  # it has what it is there for, and never says so over HTTPS
                self.told.settle.append(seat.receiver)
                return self._settle(seat, SeatState.WRITTEN, "", heard)
            self.told.dismiss.append((seat.receiver, Leaving.STUCK))
            return self._settle(seat, SeatState.HTTPS, why, heard)
        if SeatState(seat.state) is SeatState.SEATED:
            sessions.change_seat(self.connection, seat, state=SeatState.HEARING.value)
        return SeatState.HEARING

    def _stuck(self, heard: ReceiverNews) -> str:
        """Return why a node that is heard is not waited for any longer; "" when it is."""
        if heard.stuck_s < STUCK_WANTED_S:
            return ""
        why = f"stuck: everything was sent, and for {heard.stuck_s:.0f} s it wrote nothing or hardly anything"
        if heard.stuck_s >= STUCK_S:
            return why
        return f"{why}, while another session waits for the link" if self._is_link_wanted() else ""

    def _is_link_wanted(self) -> bool:
        others = (row for row in sessions.live(self.connection) if row.relay == self.row.relay)
        return any(SessionState(row.state) is SessionState.QUEUED and row.pack_map for row in others)

    def _settle(self, seat: AnyRow, state: SeatState, why: str, heard: ReceiverNews | None) -> SeatState:
        numbers: dict[str, Any] = {} if heard is None else {"parcels": heard.done, "loss": heard.loss}
        sessions.settle_seat(self.connection, self.act, seat, state, why, **numbers)
        return state
