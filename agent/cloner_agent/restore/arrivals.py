"""The packs of a multicast session as they come, and what is missing in the end from another source.

Must not know how a seat is got (`cloner_agent.seating`), nor verify: packs are checked by whoever writes them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from cloner_agent.client import PATIENCE_S
from cloner_agent.restore.job import RestoreProgress, RestoreSummary, restore
from cloner_agent.restore.source import PackSource
from cloner_agent.restore.table import SpilledTree
from cloner_core.errors import IntegrityError, InvalidError
from cloner_core.image.digest import Bytes
from cloner_core.image.packmap import PackMap, PackRef
from cloner_core.multicast.session import Leaving
from cloner_core.seats import SeatLeft, split_parcel
from cloner_multicast.feed import FeedState

DEAF_S = 10.0
"""A node that has heard nothing valid for so long after it sat down goes over HTTPS."""
SILENT_S = 60.0
"""So does one that heard nothing for so long since. Both count only while the server says that the epoch is sent.

While it has no sender, or does not answer itself, there is nothing to hear, and over HTTPS nothing to be had either: it
is waited for as by any request.
"""
POISONED_MOST = 32
"""And one to which so many parcels came with another digest, twice what it may have begun when the first was found: a
strict session has no more of them, unless a member forges them."""
LOSS_MOST, LOSSY_S = 0.3, 5.0
"""And one that loses more than this part for so long: HTTPS is faster then. Among others the sender says so earlier."""
_LOOK_S = 0.2
_ASSURED_S = 5.0  # that what came, or what the server said, shows the epoch to be sent: it is asked after 3 s
_REASONS = {
    Leaving.SLOW: "it was too slow for the others",
    Leaving.LOSS: "it lost far more than the others",
    Leaving.GREEDY: "it needed more repair than any loss explains",
    Leaving.SILENT: "it was not heard",
    Leaving.OVER: "the session ended",
    Leaving.STUCK: "it wrote nothing for minutes though everything was sent",
}


class Parcels(Protocol):
    """A session on this node; see `cloner_multicast.feed.Feed`, which started."""

    left: Leaving | None

    @property
    def is_ended(self) -> bool:
        """Whether no parcel will come any more."""

    @property
    def why(self) -> str:
        """What is known beyond `left`."""

    def arrived(self, wait_s: float | None = None) -> list[int]:
        """Return what came since, waiting at most so long."""

    def find(self, parcel: int) -> memoryview | None:
        """Return a parcel that came and was not released, in any process."""

    def release(self, parcel: int) -> None:
        """Say in any process that a parcel is written."""

    def state(self) -> FeedState:
        """Return how far it is."""

    def stop(self) -> None:
        """End it. What came and was not released stays where it is."""


class Arrivals:
    """Gives the order of the packs, and the packs: satisfies PackSource."""

    def __init__(
        self,
        sit: Callable[[], Parcels | str],
        rest: PackSource,
        total: int,
        *,
        leave: Callable[[SeatLeft], None],
        tick: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`sit` returns a session in which the node has its seat, or why it has none; `rest` has all packs.

        `leave` tells the server that the node takes no more of the session; `tick` is told several times a second what
        it does, and may raise.
        """
        self.came = 0
        """Packs that came by multicast."""
        self.why = ""
        """Why the others did not; "" while there is no such reason."""
        self._sit = sit
        self._rest = rest
        self._total = total
        self._leave = leave
        self._tick = tick
        self._clock = clock
        self._parcels: Parcels | None = None
        self._is_over = False
        self._state = FeedState()
        self._bearable_s = 0.0  # when it last lost no more than it may
        self._excused_s = 0.0  # when there was last nothing to hear
        self._is_excused = False

    @property
    def text(self) -> str:
        """How packs come now, for who looks at the node."""
        if self._parcels is None or self.why:
            return "over HTTPS" + (f" ({self.why})" if self.why else "")
        if not self.came:
            return "over multicast: waiting for the session to begin"
        if self._is_excused:
            return "over multicast: waiting for the server, and its next sender"
        return f"over multicast, loss {self._state.loss:.1%}"

    def restore(
        self,
        target: Path,
        spilled: SpilledTree,
        pack_map: PackMap,
        *,
        workers: int | None = None,
        progress: Callable[[RestoreProgress], None] = lambda _: None,
    ) -> RestoreSummary:
        """Restore from what arrives, and let go of the session; see `restore.job.restore`."""

        def show(now: RestoreProgress) -> None:
            progress(now)
            self.written(now.packs)

        try:
            return restore(
                target,
                spilled,
                pack_map,
                self,
                order=self.order,
                release=self.release,
                workers=workers,
                progress=show,
            )
        finally:
            self.close()

    def order(self) -> Iterator[int | None]:
        """Take the seat, so that workers made from now on find the parcels; return the packs in order of arrival."""
        found = self._sit()
        if isinstance(found, str):
            self.why = found
            self._tick(self.text)
            return iter(range(self._total))
        self._parcels = found
        return self._arriving(found, self._clock())

    def fetch(self, ordinal: int, pack: PackRef) -> tuple[Bytes, Bytes]:
        """Return (stored bytes, placement record) of a pack, in shared memory when it came by multicast."""
        parcel = None if self._parcels is None else self._parcels.find(ordinal)
        if parcel is None:
            return self._rest.fetch(ordinal, pack)
        try:
            return split_parcel(parcel)
        except InvalidError as error:
            raise IntegrityError(f"pack {pack.digest.hex()}: {error.message}") from error

    def release(self, ordinal: int) -> None:
        """Say, in a worker, that a pack is written."""
        if self._parcels is not None:
            self._parcels.release(ordinal)

    def written(self, packs: int) -> None:
        """Take the word that so many packs are on the disk; the session is told when that is all of them."""
        if packs == self._total and self._parcels is not None and not self._is_over:
            self._state = self._parcels.state()
            self.close()
            self._say()

    def close(self) -> None:
        """Let go of the session, without a word to anybody."""
        self._is_over = True
        if self._parcels is not None:
            self._parcels.stop()

    def _arriving(self, parcels: Parcels, started_s: float) -> Iterator[int | None]:
        given = set[int]()
        while not self._must_leave(parcels, started_s):
            self._tick(self.text)
            came = parcels.arrived(_LOOK_S)
            given.update(came)
            self.came += len(came)
            yield from came
            yield None
        if self.why:
            missing = [ordinal for ordinal in range(self._total) if ordinal not in given]
            self.close()
            self.came += sum(parcels.find(ordinal) is not None for ordinal in missing)  # came, and was not told yet
            self._say()
            self._tick(self.text)
            yield from missing

    def _say(self) -> None:
        state = self._state
        loss = min(1.0, max(0.0, state.loss))
        self._leave(SeatLeft(self.why, self.came, loss=loss, forged=state.forged, heard=state.is_heard))

    def _must_leave(self, parcels: Parcels, started_s: float) -> bool:
        """Return whether no more is to be awaited of the session; `why` says the reason, "" when all has come."""
        state = self._state = parcels.state()
        now_s, seated_s = self._clock(), max(started_s, state.seated_s)
        if state.loss <= LOSS_MOST:
            self._bearable_s = now_s
        if parcels.is_ended:
            if parcels.left is not None and self.came < self._total:
                self.why = parcels.why or _REASONS[parcels.left]
            return True
        if state.poisoned > POISONED_MOST:
            self.why = f"{state.poisoned} parcels came with other bytes than the server's: somebody forges them"
        elif silence := self._silence(state, seated_s, now_s):
            self.why = silence
        elif now_s - max(self._bearable_s, seated_s) > LOSSY_S:
            self.why = f"{state.loss:.0%} of what is sent does not arrive"
        return bool(self.why)

    def _silence(self, state: FeedState, seated_s: float, now_s: float) -> str:
        """Return why nothing more is to be awaited though nothing says so; "" while there is hope."""
        since_s = max(state.heard_s, seated_s)
        # Not before the first seat: then it is not the server that does nothing.
        self._is_excused = state.seated_s > 0 and now_s - max(since_s, state.assured_s) > _ASSURED_S
        if self._is_excused:
            self._excused_s = now_s
            if now_s - since_s > PATIENCE_S:
                return f"nothing arrived for {PATIENCE_S / 60:.0f} min, and the server has no sender"
        quiet_s = now_s - max(since_s, self._excused_s)
        if not state.is_heard and quiet_s > DEAF_S:
            return f"nothing arrived in {DEAF_S:.0f} s: multicast does not reach this node"
        return f"nothing arrived for {SILENT_S:.0f} s" if state.is_heard and quiet_s > SILENT_S else ""
