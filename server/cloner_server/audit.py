"""What strangers on the network do is noted, without letting them fill the disk.

Anybody can ask for a boot script or show a wrong credential as often as the wire allows. A source may cause so many
events a minute, all of them together so many; what is beyond is counted, and told by one summary a source and minute.
What admins and live attempts do is recorded in full and does not come here.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloner_server.backlog import give_back, take_all
from cloner_server.state import events
from cloner_server.state.database import Act

REFUSED = "request refused"
LEFT_OUT = "events left out"

_OTHERS = "others"  # sources beyond those that are told apart
_PATH_CHARACTERS = 200
_KEPT_NOTES = 10_000  # while the database takes none, the newest
_REFUSALS = range(400, 500)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of the network's doings is written in full."""

    window_s: float = 60.0
    of_source: int = 20  # events a window
    of_all: int = 600  # of machines nobody knows
    alarms: int = 30  # of a kind and window, those of strangers apart: what they cause drowns no other alarm
    sources: int = 1000  # told apart; the others are counted together
    summaries: int = 16  # sources told of by name, those that did most


@dataclass(frozen=True, slots=True)
class _Note:
    source: str
    what: str
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class News:
    """What is to be written: notes, and by source and kind what a window that has passed left out."""

    notes: list[_Note]
    left_out: dict[str, Counter[str]]


@dataclass(slots=True)
class NetworkAudit:
    """Decides what is written and counts what is not; safe for several threads.

    Notes wait in memory until housekeeping writes them, several times a second: a kill loses those of refused
    requests, never anything that was granted.
    """

    limits: Limits = Limits()
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _notes: deque[_Note] = field(default_factory=lambda: deque(maxlen=_KEPT_NOTES))
    _since_s: float = 0.0
    _written: Counter[str] = field(default_factory=Counter)  # by source, in this window
    _strangers: int = 0  # events of machines nobody knows, in this window
    _alarms: Counter[tuple[str, bool]] = field(default_factory=Counter)  # by kind, and whether of a known machine
    _left_out: dict[str, Counter[str]] = field(default_factory=dict)  # by source and kind

    def note(self, now_s: float, source: str, what: str, **detail: object) -> None:
        """Have housekeeping write an event of the machine `source`, or count it."""
        with self._lock:
            if self._admit(now_s, source, what, is_alarm=False, is_known=False):
                self._notes.append(_Note(source, what, detail))

    def admit(self, now_s: float, source: str, what: str, *, is_alarm: bool = False, is_known: bool = False) -> bool:
        """Return whether the caller may write an event that `source` has caused; one that may not is counted.

        `is_known`: it bears the MAC of a node, or we looked for it. A hall that boots at once is no flood.
        """
        with self._lock:
            return self._admit(now_s, source, what, is_alarm=is_alarm, is_known=is_known)

    def has_news(self, now_s: float) -> bool:
        """Whether there is something to write."""
        with self._lock:
            return bool(self._notes) or (bool(self._left_out) and self._is_over(now_s))

    @contextmanager
    def news(self, now_s: float) -> Iterator[News]:
        """Give what is to be written; a block that raises gives it back, to be written later."""
        with self._lock:
            news = News(take_all(self._notes), self._roll(now_s) if self._is_over(now_s) else {})
        try:
            yield news
        except BaseException:
            with self._lock:
                give_back(self._notes, news.notes)
                for source, counts in news.left_out.items():
                    self._leave_out(source, counts)
            raise

    def record(self, connection: Connection, act: Act, news: News) -> None:
        """Write the notes, and the summary of a window that has passed."""
        left_out = news.left_out
        for note in news.notes:
            events.record(connection, act, f"machine/{note.source}", note.what, is_network=True, **note.detail)
        most = sorted(left_out, key=lambda source: left_out[source].total(), reverse=True)
        named, rest = most[: self.limits.summaries], most[self.limits.summaries :]
        for source in named:
            self._summarise(connection, act, f"machine/{source}", left_out[source])
        if rest:
            together = sum((left_out[source] for source in rest), Counter[str]())
            self._summarise(connection, act, "site", together, sources=len(rest))

    def _summarise(self, connection: Connection, act: Act, obj: str, counts: Counter[str], **detail: object) -> None:
        told: dict[str, Any] = {"count": counts.total(), "of": dict(counts), "seconds": self.limits.window_s} | detail
        events.record(connection, act, obj, LEFT_OUT, is_network=True, **told)

    def _admit(self, now_s: float, source: str, what: str, *, is_alarm: bool, is_known: bool) -> bool:
        if self._is_over(now_s) and not self._left_out:
            self._roll(now_s)  # else `news` does it, which tells of them
        if source not in self._written and len(self._written) >= self.limits.sources and not is_known:
            source = _OTHERS
        if is_alarm:
            has_room = self._alarms[what, is_known] < self.limits.alarms
        else:
            has_room = is_known or self._strangers < self.limits.of_all
        is_own_share_left = self._written[source] < self.limits.of_source or (is_alarm and source == _OTHERS)
        if has_room and is_own_share_left:
            self._written[source] += 1
            self._alarms[what, is_known] += is_alarm
            self._strangers += not is_known and not is_alarm
            return True
        self._leave_out(source, Counter((what,)))
        return False

    def _leave_out(self, source: str, counts: Counter[str]) -> None:
        if source not in self._left_out and len(self._left_out) >= self.limits.sources:
            source = _OTHERS
        self._left_out.setdefault(source, Counter()).update(counts)

    def _is_over(self, now_s: float) -> bool:
        return not 0 <= now_s - self._since_s < self.limits.window_s

    def _roll(self, now_s: float) -> dict[str, Counter[str]]:
        """Begin a window; return what the former left out."""
        left_out, self._left_out = self._left_out, {}
        self._since_s, self._strangers = now_s, 0
        self._alarms.clear()
        self._written.clear()
        return left_out


def audited(app: ASGIApp, audit: NetworkAudit, clock: Callable[[], float]) -> ASGIApp:
    """Return `app` with every refusal (4xx) noted under the address it went to; bodies and query strings are not."""

    async def watch(scope: Scope, receive: Receive, send: Send) -> None:
        async def look(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in _REFUSALS:
                source = (scope.get("client") or ("unknown", 0))[0]
                told = {"method": scope["method"], "path": scope["path"][:_PATH_CHARACTERS]}
                audit.note(clock(), source, REFUSED, status=message["status"], **told)
            await send(message)

        await app(scope, receive, look)

    return watch
